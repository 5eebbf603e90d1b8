"""How far raters agree, and how the three gold standards differ, for RECOLA and for tables like CEAP-360VR's.

    python -m data_prep.agreement --source=DIR [--output=FILE.json]

DIR has either RECOLA's public layout or one CSV file per rater with the columns video, time, valence, arousal.
"""

import argparse
import json
import pathlib
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep import annotations, tables
from media.errors import BadItem, UserError
from media.standard_output import ends_quietly
from media.termination import ends_when_stopped

DIMENSIONS = ("valence", "arousal")


def intraclass(raters: np.ndarray) -> dict[str, float]:
    """Intraclass correlations of complete traces (Shrout & Fleiss 1979; McGraw & Wong 1996) and Cronbach's alpha.

    Args:
      raters: float `[T, R]`, T >= 2, R >= 2, no NaN.

    Returns:
      icc_agreement: ICC(2,1), for a single rater; differences in level count as error.
      icc_consistency: ICC(3,1), for a single rater; differences in level do not count.
      icc_mean: ICC(3,k), for the mean over raters; it equals Cronbach's alpha.
      alpha: Cronbach's alpha.
    """
    times, count = raters.shape
    if times < 2 or count < 2:
        raise ValueError(f"at least two times and two raters are needed, found {times} and {count}")
    grand = raters.mean()
    rows = count * ((raters.mean(axis=1) - grand) ** 2).sum() / (times - 1)
    columns = times * ((raters.mean(axis=0) - grand) ** 2).sum() / (count - 1)
    residual = raters - raters.mean(axis=1, keepdims=True) - raters.mean(axis=0) + grand
    error = (residual**2).sum() / ((times - 1) * (count - 1))
    total = raters.sum(axis=1).var(ddof=1)
    alpha = count / (count - 1) * (1 - raters.var(axis=0, ddof=1).sum() / total) if total > 0 else 0.0

    def ratio(above: float, below: float) -> float:
        return float(above / below) if below > 0 else 0.0

    return {
        "icc_agreement": ratio(rows - error, rows + (count - 1) * error + count * (columns - error) / times),
        "icc_consistency": ratio(rows - error, rows + (count - 1) * error),
        "icc_mean": ratio(rows - error, rows),
        "alpha": float(alpha),
    }


def agreement(raters: np.ndarray) -> dict[str, Any]:
    """Measures the agreement of raters on one recording and one dimension.

    Args:
      raters: float `[T, R]`. Raters who are absent (NaN) throughout are left out, then times at which any is absent.

    Returns:
      raters and times, their numbers; pearson and ccc, means over pairs; the values of `intraclass`; standards, for
      each gold standard the mean CCC of each rater with the standard of the *others*, and its CCC with the plain mean.
    """
    raters = np.asarray(raters, np.float64)
    raters = raters[:, np.isfinite(raters).any(axis=0)]
    raters = raters[np.isfinite(raters).all(axis=1)]
    mean = annotations.gold_standard(raters, "mean")
    standards = {}
    for method in annotations.GOLD_STANDARDS:
        others = [
            annotations.ccc(raters[:, r], annotations.gold_standard(np.delete(raters, r, axis=1), method))
            for r in range(raters.shape[1])
        ]
        whole = annotations.gold_standard(raters, method)
        standards[method] = {
            "rater_against_others": float(np.mean(others)),
            "ccc_with_mean": annotations.ccc(whole, mean),
        }
    return {
        "raters": raters.shape[1],
        "times": raters.shape[0],
        "pearson": float(annotations.pairwise(raters, annotations.pearson).mean()),
        "ccc": float(annotations.pairwise(raters, annotations.ccc).mean()),
        **intraclass(raters),
        "standards": standards,
    }


def read_rater_tables(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Reads one CSV file per rater (video, time, valence, arousal) into {video: {dimension: float `[T, R]`}}.

    Traces are resampled to the times of the first rater of each video.

    Raises:
      UserError: a table cannot be read; file and line are named.
    """
    traces: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    paths = sorted(folder.glob("*.csv"))
    for path in paths:
        rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        try:
            table = tables.read(path)
            if not {"video", "time", *DIMENSIONS} <= set(table.header):
                raise tables.TableError(f"the header must have video,time,valence,arousal, not {table.header}")
            for number, cells in table.rows:
                row = dict(zip(table.header, cells, strict=True))
                try:
                    line = (table.seconds(row["time"]), *(table.number(row[key]) for key in DIMENSIONS))
                except tables.TableError as error:
                    raise tables.TableError(f"line {number}: {error}") from error
                if np.isfinite(line[0]):
                    rows[row["video"]].append(line)
        except (OSError, tables.TableError) as error:
            raise UserError(f"{path}: {error}.") from error
        for video, lines in rows.items():
            traces[video][path.stem] = np.array(sorted(lines))
    out = {}
    for video, by_rater in sorted(traces.items()):
        first = next(iter(by_rater.values()))[:, 0]
        on_first = [annotations.resample(table[:, 0], table[:, 1:], first) for table in by_rater.values()]
        out[video] = {name: np.stack([one[:, d] for one in on_first], axis=1) for d, name in enumerate(DIMENSIONS)}
    return out


def read_recola(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Reads RECOLA's public annotation into {participant: {dimension: float `[T, 6]`}}."""
    base = folder / "RECOLA-Annotation" / "emotional_behaviour"
    out: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for dimension in DIMENSIONS:
        for path in sorted((base / dimension).glob("*.csv")):
            try:
                out[path.stem][dimension] = annotations.read_traces(path)[2]
            except BadItem as error:
                raise UserError(f"{path}: {error}.") from error
    return dict(out)


def report(source: pathlib.Path) -> dict[str, Any]:
    """Measures agreement for each recording and dimension, and its means over recordings.

    Raises:
      UserError: the source has no traces by at least two raters.
    """
    if (source / "RECOLA-Annotation").is_dir():
        recordings = read_recola(source)
    elif source.is_dir():
        recordings = read_rater_tables(source)
    else:
        raise UserError(f"--source={source} is not a folder.")
    if not recordings:
        raise UserError(f"{source} has neither a RECOLA-Annotation folder nor raters' tables (*.csv).")
    out: dict[str, Any] = {"recordings": {}, "mean": {}}
    for name, dimensions in recordings.items():
        try:
            out["recordings"][name] = {dimension: agreement(raters) for dimension, raters in dimensions.items()}
        except ValueError as error:
            raise UserError(f"{source}, recording {name}: {error}.") from error
    for dimension in DIMENSIONS:
        rows = [one[dimension] for one in out["recordings"].values() if dimension in one]
        keys = [key for key in rows[0] if key not in ("standards", "times", "raters")] if rows else []
        out["mean"][dimension] = {key: float(np.mean([row[key] for row in rows])) for key in keys}
        out["mean"][dimension]["standards"] = {
            method: {k: float(np.mean([row["standards"][method][k] for row in rows])) for k in values}
            for method, values in (rows[0]["standards"].items() if rows else ())
        }
    return out


@ends_quietly
@ends_when_stopped("run the same command again")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.agreement", description=__doc__.split("\n")[0])
    parser.add_argument("--source", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE.json", help="also write all results by recording")
    chosen = parser.parse_args(arguments)
    try:
        found = report(chosen.source)
        if chosen.output:
            chosen.output.write_text(json.dumps(found, indent=1) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: --output={chosen.output} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    print(f"{len(found['recordings'])} recordings, means over them")
    for dimension, values in found["mean"].items():
        figures = "  ".join(f"{key} {value:.3f}" for key, value in values.items() if key != "standards")
        print(f"  {dimension:<8} {figures}")
        for method, standard in values["standards"].items():
            shown = "  ".join(f"{key} {value:.3f}" for key, value in standard.items())
            print(f"    {method:<5} {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
