"""Splits by speaker, for corpora that come without a split of their own."""

from collections.abc import Sequence

from media.errors import UserError


def numbers(text: str, flag: str) -> list[int]:
    """Reads "11,12" as numbers; a `UserError` names the flag."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"--{flag}={text}: numbers with commas between them, such as 11,12.") from error


def by_speaker(speakers: Sequence[int], dev_speakers: str, test_speakers: str) -> dict[int, str]:
    """The split of each speaker.

    Args:
      speakers: numbers of those that are there, sorted.
      dev_speakers, test_speakers: numbers such as "11,12"; without any for dev it is the last sixth of the rest, at
        least one.

    Raises:
      UserError: a number is not there, or in both.
    """
    dev, test = numbers(dev_speakers, "dev_speakers"), numbers(test_speakers, "test_speakers")
    unknown = sorted({*dev, *test} - set(speakers))
    if unknown:
        raise UserError(f"no speaker {unknown[0]} in the source: it has {', '.join(map(str, speakers))}.")
    if not dev:
        left = [speaker for speaker in speakers if speaker not in test]
        dev = left[-max(1, round(len(left) / 6)) :]
    both = sorted(set(dev) & set(test))
    if both:
        raise UserError(f"speaker {both[0]} is in --dev_speakers and --test_speakers: a speaker has one split.")
    return {
        **dict.fromkeys(speakers, "train"),
        **dict.fromkeys(dev, "dev"),
        **dict.fromkeys(test, "test"),
    }
