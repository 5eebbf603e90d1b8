"""Sentences that explain a sweep's numbers, for the captions of tables and page."""

from collections.abc import Sequence

from avemo.metrics import significance
from avemo.sweep import plan
from avemo.sweep.summary import SettingResult, SettingScores

FEW = 20  # recordings, below which a percentile interval is too narrow


def scored(results: Sequence[SettingResult]) -> list[SettingScores]:
    """The scores of the settings that have any."""
    return [result.scores for result in results if result.scores]


def notes(sweep: plan.Sweep, results: Sequence[SettingResult]) -> list[str]:
    """The sentences of a caption; the sweep's own note comes last."""
    scores = scored(results)
    if not scores:
        return ["No setting is finished yet."]
    first = scores[0]
    split = results[0].split
    out = [
        _folded(sweep, first) if sweep.folds else _scope(first, split),
        *_unscored(results),
        _intervals(len(first.recordings)),
        _differences(results),
    ]
    if first.metric == "CCC":
        out.append(
            "CCC = 2·cov / (var + var + (difference of means)²), all moments biased (1/n): over the concatenation of "
            "all recordings, and averaged over the recordings; both are means over valence and arousal."
        )
    if any(s.alone for s in scores):
        names = ", ".join(f"{name} only" for name in dict.fromkeys(name for s in scores for name in s.alone))
        other = "other modality" if not any(s.without for s in scores) else "other streams"
        out.append(f"{names[:1].upper()}{names[1:]}: the same fused checkpoints with the {other} masked throughout.")
    if any(s.without for s in scores):
        out.append("Without a stream: the same fused checkpoints with that stream masked throughout.")
    if any(s.processed for s in scores):
        fitted = " (the split that is scored, so optimistic)" if split == "dev" else " and applied unchanged"
        where = "the dev parts of each fold" if sweep.folds else "dev"
        out.append(
            f"Post-processed: median filter, centring, scaling about the mean and time shift, each fitted on {where}"
            f"{fitted} and kept only if it raised the dev CCC. Steps kept are counted over seeds and dimensions."
        )
    if any(s.flops for s in scores):
        out.append(
            "FLOPs/frame: matrix products and convolutions of the forward pass. ms/step: one seed's share, on a "
            "machine that may have trained several settings at once."
        )
    return out + ([sweep.note] if sweep.note else [])


def _scope(scores: SettingScores, split: str) -> str:
    if scores.chosen:
        optimistic = " (on the same recordings, so the scores are optimistic)" if split == "dev" else ""
        checkpoint = f"the checkpoint that scored best on dev{optimistic}"
    else:
        checkpoint = "the last checkpoint, the only one that was scored"
    return (
        f"Scores are on the {split} split ({len(scores.recordings)} recordings), with {checkpoint}; "
        "mean ± standard deviation over seeds."
    )


def _folded(sweep: plan.Sweep, scores: SettingScores) -> str:
    dev = "no dev part, so the last checkpoint counts"
    if sweep.dev_parts:
        dev = f"a dev part of the other folds, one of {sweep.dev_parts}, on which alone anything was chosen"
        dev += "; the networks of a fold, one per dev part, are averaged" if sweep.nested else ""
        dev += f"; so are its best {sweep.average} candidates" if sweep.average > 1 else ""
    return (
        f"Scores are of out-of-fold predictions, pooled over {sweep.folds} folds by {sweep.fold_by} "
        f"({len(scores.recordings)} recordings): a network is tested on a fold that it did not learn from, with {dev}. "
        "Mean ± standard deviation over seeds."
    )


def _unscored(results: Sequence[SettingResult]) -> list[str]:
    found = dict.fromkeys(missing for result in results for missing in result.unscored.items())
    return [f"Not scored on {split}: {reason}" for split, reason in found]


def _intervals(recordings: int) -> str:
    narrow = "; with so few recordings it is too narrow" if recordings < FEW else ""
    return f"Intervals: 95 % percentile bootstrap over recordings (9,999 resamples) of the mean over seeds{narrow}."


def _differences(results: Sequence[SettingResult]) -> str:
    reference = next((result.name for result in results if result.reference), "")
    recordings = len(scored(results)[0].recordings)
    compared = sum(result.p_holm is not None for result in results)
    smallest = significance.smallest_p(recordings)
    corrected = f" ({min(1.0, compared * smallest):.2g} after correction)" if compared else ""
    return (
        f"Difference from {reference}: paired bootstrap interval; p from a paired permutation test over recordings, "
        f"Holm-corrected over {compared} comparisons. With {recordings} recordings the smallest possible p is "
        f"{smallest:.2g}{corrected}."
    )
