"""The contents of the data set card: what a prepared data set holds, what was left out and why, and its arguments."""

import collections
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from data_prep.card import page, sound
from data_prep.card.counts import SplitCounts, share
from data_prep.corpora.base import Corpus, Item
from media.records import SCHEMA_VERSION, Serializer

FILENAME = "card.json"
SKIPPED = "skipped.jsonl"
LISTED = 100  # failed items, and recordings per flag, that the card lists by name
PAGE = "card.html"


def reasons(indices: Sequence[Mapping[str, Any]]) -> str:
    """Says in one phrase why items gave no record, the most frequent reasons first."""
    counts: collections.Counter[str] = collections.Counter()
    for index in indices:
        counts.update(index["dropped"])
        counts.update(failure["reason"] for failure in index["skipped"])
    return "; ".join(f"{reason} ({count})" for reason, count in counts.most_common(3)) or "it has no items"


def fingerprint(items: Sequence[Item]) -> str:
    """Returns 16 hex digits of SHA-256 over the items' names, splits and subjects; their location does not matter."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.key}\0{item.split}\0{item.subject}\n".encode())
    return digest.hexdigest()[:16]


def write(
    folder: epath.Path,
    corpus: Corpus,
    info: Any,
    counts: SplitCounts,
    indices: Sequence[Mapping[str, Any]],
    arguments: Mapping[str, Any],
    items: Sequence[Item],
) -> None:
    """Writes `card.json`, `card.html`, and `skipped.jsonl` (one line per failed item)."""
    folder = epath.Path(folder)
    skipped = [failure for index in indices for failure in index["skipped"]]
    dropped: collections.Counter[str] = collections.Counter()
    for index in indices:
        dropped.update(index["dropped"])
    label = info.features["type" if corpus.kind == "triplets" else "label"]
    names = list(getattr(label, "names", []))
    table = counts.to_json()
    notes = list(corpus.notes)
    for name, split in table.items():
        numbers = split["counts"]
        split["labels"] = {names[int(k)] if int(k) >= 0 else "unlabelled": n for k, n in split["labels"].items()}
        split["subjects"] = len({item.subject for item in items if item.split == name and item.subject}) or None
        flagged = split.pop("flags")
        constant = split.pop("constant")
        if constant and name == "train":
            first = ", ".join(list(constant)[:LISTED])
            notes.append(f"{len(constant)} columns never change in train, leave them out by cols=!NAME: {first}")
        if corpus.kind == "clips":
            listed = {flag: {"recordings": len(n), "first": n[:LISTED]} for flag, n in flagged.items()}
            about_labels = {flag: found for flag, found in listed.items() if flag.startswith("annotation")}
            split["sound"] = {flag: found for flag, found in listed.items() if flag not in about_labels}
            split["annotation"] = about_labels
            split["seconds"] = round(numbers.pop("milliseconds", 0) / 1000, 3)
            split["face_miss_rate"] = share(numbers["frames_without_face"], numbers["frames"])
            split["no_sound_rate"] = share(numbers["frames_without_sound"], numbers["frames"])
        elif corpus.kind == "features":
            split["seconds"] = round(numbers.pop("milliseconds", 0) / 1000, 3)
            split["annotation"] = {f: {"recordings": len(n), "first": n[:LISTED]} for f, n in flagged.items()}
    card = {
        "corpus": corpus.name,
        "kind": corpus.kind,
        "title": corpus.title,
        "citation": corpus.citation,
        "licence": corpus.licence,
        "schema": SCHEMA_VERSION,
        "classes": names,
        "splits": table,
        "items": len(items),
        "items_skipped": len(skipped),
        "items_left_out": dict(dropped.most_common()),
        "notes": notes,
        "skipped": skipped[:LISTED],
        "source_fingerprint": fingerprint(items),
        "arguments": dict(arguments),
        **corpus.card(),
    }
    (folder / FILENAME).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    samples, log_mel = _samples(corpus, indices, names)
    (folder / PAGE).write_text(page.page(card, [*samples, *sound.pictures(log_mel)]))
    lines = [json.dumps(failure, ensure_ascii=False) + "\n" for failure in skipped]
    (folder / SKIPPED).write_text("".join(lines))


def _samples(
    corpus: Corpus, indices: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[list[tuple[bytes, str]], np.ndarray | None]:
    """Picks images of records spread evenly over the data set, and the log-mel `[rows, 64]` of the first with sound."""
    if corpus.kind == "features":
        return [], None
    entries = [(index["path"], offset, length) for index in indices for _, _, offset, length in index["records"]]
    wanted = min(len(entries), page.SAMPLES // (3 if corpus.kind == "triplets" else 1))
    serializer, samples, log_mel = Serializer(corpus.features()), [], None
    for position in range(page.SAMPLES if corpus.kind == "clips" else wanted):
        path, offset, length = entries[position % wanted * len(entries) // wanted]
        with open(path, "rb") as file:
            file.seek(offset)
            raw = serializer.parse(file.read(length))
        samples += page.sample_images(corpus.kind, raw, names, position)
        if log_mel is None and corpus.kind == "clips" and np.any(raw["audio_mask"]):
            log_mel = np.reshape(raw["log_mel"], (-1, 64))
    return samples, log_mel
