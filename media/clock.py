"""One clock for the tracks of a file whose time stamps begin again, jump back or leap.

Files joined from several, restarted recorders and damaged streams hold such stamps. Picture and sound jump together
there, so both are moved by the same seconds and stay together. Where only one of them jumps, nothing says which is
right, and the file is refused.
"""

import dataclasses

import av

from media.errors import BadItem

_BACK_SECONDS = 0.1  # packets come in order of decoding, so their stamps never fall
_BACK_SECONDS_REORDERED = 1.0  # without decoding stamps, those of display fall by a few frames
_LEAP_SECONDS = 10.0
# A shorter leap of all tracks is taken for what it says: nothing was recorded meanwhile.
_LONGEST_LEAP_SECONDS = 3600.0
_APART_SECONDS = 5.0  # tracks that run on in parallel for so long after one of them jumped are apart
_OVERLAP_SECONDS = 0.5


@dataclasses.dataclass
class _Track:
    """One track: the part of the file it is in, and where its stamps are and should go on, in seconds as stored."""

    part: int
    stamp: float
    following: float  # where the next packet should begin
    since: float  # where this part of it begins
    end: float  # on the common clock
    shown: bool  # whether `stamp` is the time of display, for want of one of decoding
    at_jump: float = 0.0  # `stamp` when another track jumped first


class Clock:
    """Moves the stamps of packets, taken in the order of the file, so that no track goes back or leaps for hours.

    Attributes:
      end: for each track's index, the time at which its last packet ends, in seconds.
      start: for each track's index, the time at which its first packet begins.
      jumps: seconds, on the common clock, at which the file's stamps jumped and were moved.
    """

    def __init__(self) -> None:
        self._tracks: dict[int, _Track] = {}
        self._shifts = [0.0]  # seconds added in each part of the file
        self.start: dict[int, float] = {}
        self.jumps: list[float] = []

    @property
    def end(self) -> dict[int, float]:
        """See the class."""
        return {index: track.end for index, track in self._tracks.items()}

    def __call__(self, packet: av.Packet) -> None:
        """Moves a packet's stamps in place; a packet without stamps stays as it is.

        Raises:
          BadItem: the tracks jump by different times.
        """
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or not packet.time_base:
            return
        base = packet.time_base
        time, index, shown = float(stamp * base), packet.stream.index, packet.dts is None
        lasts = float((packet.duration or 0) * base)
        track = self._tracks.get(index)
        if not lasts and track is not None and 0 < time - track.stamp < 1:
            lasts = time - track.stamp
        if track is None:
            part = max((other.part for other in self._tracks.values()), default=0)
            track = self._tracks[index] = _Track(part, time, time, time, time + self._shifts[part], shown)
            self.start[index] = track.end
        elif self._jumps(track, time, shown or track.shown):
            self._enter_next_part(track, time)
        track.stamp, track.following, track.shown = time, time + lasts, shown
        self._check_together()
        shift = self._shifts[track.part]
        displayed = float(packet.pts * base) if packet.pts is not None else time
        track.end = max(track.end, displayed + shift + lasts)
        if shift:
            ticks = round(shift / float(base))
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def _jumps(self, track: _Track, time: float, reordered: bool) -> bool:
        if time < track.stamp - (_BACK_SECONDS_REORDERED if reordered else _BACK_SECONDS):
            return True
        if time < track.following + _LEAP_SECONDS:
            return False
        others = [other for other in self._tracks.values() if other is not track]
        if any(other.part > track.part for other in others):
            return True
        # A picture that stands for long, or a pause of one track: the others have come this far already.
        shown = time + self._shifts[track.part]
        return all(other.end < shown - _LEAP_SECONDS for other in others)

    def _enter_next_part(self, track: _Track, time: float) -> None:
        part = track.part + 1
        if part == len(self._shifts):  # the first track to jump decides for all
            back = time < track.stamp
            others = [other.end for other in self._tracks.values() if other is not track]
            goes_on = max(track.following + self._shifts[track.part], max(others, default=0) - _OVERLAP_SECONDS)
            moved = back or time - track.following > _LONGEST_LEAP_SECONDS
            self._shifts.append(goes_on - time if moved else self._shifts[track.part])
            if moved:
                self.jumps.append(goes_on)
            for other in self._tracks.values():
                other.at_jump = other.stamp
        elif abs(time + self._shifts[part] - track.end) > _APART_SECONDS and time < track.stamp:
            raise _apart(track.end)
        track.part, track.since = part, time

    def _check_together(self) -> None:
        newest = max(track.part for track in self._tracks.values())
        ahead = [track for track in self._tracks.values() if track.part == newest]
        for track in self._tracks.values():
            ran_on = track.part < newest and track.stamp - track.at_jump > _APART_SECONDS
            if ran_on and any(other.stamp - other.since > _APART_SECONDS for other in ahead):
                raise _apart(track.end)


def _apart(seconds: float) -> BadItem:
    return BadItem(f"the clocks of picture and sound part at {seconds:.1f} s, and nothing says which of them is right")
