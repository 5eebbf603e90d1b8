"""A network for faces, scored on clips: the frames of a recording pooled to one prediction."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avemo import metrics
from avemo.data import padding
from avemo.evaluation import adaptation
from media.images import resize


def pool_frames(
    mapped: Callable, variables: Any, clips: Any, config: ConfigDict, per_person: bool = False
) -> dict[str, np.ndarray]:
    """Class probabilities of recordings, the mean over their frames with a face.

    Args:
      mapped: `(variables, {"image": uint8 [B, S, S, 3]}) -> {"logits": [B, C]}`, over all devices.
      variables: the network's.
      clips: records of prepared clips; consecutive segments of a recording count together.
      config: of the run; `data.eval_batch` frames go through the network at once.
      per_person: the mean of log probabilities instead, less the mean over the recordings of the same person that
        have a face (`avemo.evaluation.adaptation.without_person`).

    Returns:
      recording `[R]`, label int `[R]`, probability float64 `[R, C]`, uniform where no frame has a face, and frames int
      `[R]`, how many were pooled.
    """
    places: dict[str, int] = {}
    labels: list[int] = []
    persons: list[str] = []

    def faces() -> Iterator[padding.Batch]:
        for number in range(len(clips)):
            record = clips[number]
            place = places.setdefault(record["recording"], len(places))
            if place == len(labels):
                labels.append(int(record["label"]))
                persons.append(record["subject"])
            for index in np.flatnonzero(record["face_mask"]):
                image = resize(record["frames"].decode(int(index)), config.model.image_size)
                yield {"image": image, "place": np.int32(place)}

    classes = config.model.num_classes
    found, rows = [np.zeros(0, np.int32)], [np.zeros((0, classes))]
    for batch in padding.padded_batches(faces(), config.data.eval_batch):
        keep = batch["weight"] > 0
        found.append(batch["place"][keep])
        said = metrics.softmax(mapped(variables, {"image": batch["image"]})["logits"])[keep]
        rows.append(np.log(np.maximum(said, np.finfo(np.float32).tiny)) if per_person else said)
    frames = np.bincount(np.concatenate(found), minlength=len(labels))
    total = np.zeros((len(labels), classes))
    np.add.at(total, np.concatenate(found), np.concatenate(rows))
    seen = frames > 0
    probability = np.where(seen[:, None], total / np.maximum(frames, 1)[:, None], 1 / classes)
    if per_person:
        probability[seen] = adaptation.without_person(probability[seen], np.array(persons)[seen])
    return {
        "recording": np.array(list(places)),
        "label": np.array(labels, np.int64),
        "probability": probability,
        "frames": frames,
    }
