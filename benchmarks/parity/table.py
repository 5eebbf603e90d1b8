"""A row of the parity table, and how a difference is measured."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
      name: what is compared, and in which mode.
      reference: package and version, or the formula.
      max_abs_diff: the value of `difference`; NaN if the reference could not be run.
      tolerance: the largest difference allowed.
      note: the reason for the tolerance, or for the NaN.
    """

    name: str
    reference: str
    max_abs_diff: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return self.max_abs_diff <= self.tolerance


def difference(ours: np.ndarray, theirs: np.ndarray, floor: float = 1e-12) -> float:
    """Returns the largest absolute difference divided by the reference's largest absolute value.

    The divisor is at least `floor`, because a gradient of 0 is only rounding noise.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: ours {ours.shape}, reference {theirs.shape}")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), floor))


def render(rows: list[Row]) -> str:
    """Returns the table as Markdown."""
    lines = ["| what | reference | max abs diff | allowed | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "ok" if row.passed else "FAIL"
        note = f"{verdict}; {row.note}" if row.note else verdict
        lines.append(f"| {row.name} | {row.reference} | {row.max_abs_diff:.1e} | {row.tolerance:.0e} | {note} |")
    return "\n".join(lines)
