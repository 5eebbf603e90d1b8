"""Splits by speaker, for corpora that are published without a split."""

from collections.abc import Sequence

from media.errors import UserError


def numbers(text: str, flag: str) -> list[int]:
    """Reads numbers such as "11,12"; raises a `UserError` that names the flag."""
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError as error:
        raise UserError(f"--{flag}={text}: expected numbers separated by commas, such as 11,12.") from error


def by_speaker(speakers: Sequence[int], dev_speakers: str, test_speakers: str) -> dict[int, str]:
    """Assigns each speaker to a split.

    Args:
      speakers: numbers of the speakers in the source, sorted.
      dev_speakers, test_speakers: numbers such as "11,12". If no dev speaker is given, dev is the last sixth of those
        who are not test, at least one.

    Raises:
      UserError: a speaker is not in the source, or is in both splits.
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
        raise UserError(f"speaker {both[0]} is in both --dev_speakers and --test_speakers: name a speaker once.")
    return {
        **dict.fromkeys(speakers, "train"),
        **dict.fromkeys(dev, "dev"),
        **dict.fromkeys(test, "test"),
    }
