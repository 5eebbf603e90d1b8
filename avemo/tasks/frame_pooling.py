"""Scores a face network on clips: the frames of a recording are pooled to one prediction."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avemo import metrics
from avemo.data import padding
from media.errors import UserError
from media.images import resize


def pool_frames(
    predict: Callable, variables: Any, clips: Any, config: ConfigDict, per_person: bool = False
) -> dict[str, np.ndarray]:
    """Class probabilities of recordings: the mean over their frames with a face.

    Args:
      predict: `(variables, {"image": uint8 [B, S, S, 3]}) -> {"logits": [B, C]}`, over all devices.
      variables: the network's.
      clips: records of prepared clips; all segments of a recording count together.
      config: the run's; `data.eval_batch` frames go through the network at once.
      per_person: average log probabilities instead, and subtract the mean over the same person's recordings that have
        a face (`without_person`).

    Returns:
      recording `[R]`, label int `[R]`, probability float64 `[R, C]` (uniform for a recording without a face), and
      frames int `[R]`, the number of frames pooled.
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
        said = metrics.softmax(predict(variables, {"image": batch["image"]})["logits"])[keep]
        rows.append(np.log(np.maximum(said, np.finfo(np.float32).tiny)) if per_person else said)
    frames = np.bincount(np.concatenate(found), minlength=len(labels))
    total = np.zeros((len(labels), classes))
    np.add.at(total, np.concatenate(found), np.concatenate(rows))
    seen = frames > 0
    probability = np.where(seen[:, None], total / np.maximum(frames, 1)[:, None], 1 / classes)
    if per_person:
        probability[seen] = without_person(probability[seen], np.array(persons)[seen])
    return {
        "recording": np.array(list(places)),
        "label": np.array(labels, np.int64),
        "probability": probability,
        "frames": frames,
    }


def without_person(log_probability: np.ndarray, persons: Sequence[str] | np.ndarray) -> np.ndarray:
    """Probabilities relative to each person's average prediction.

    Args:
      log_probability: `[R, C]`, the mean over the frames of each recording.
      persons: `[R]`, whose recording it is.

    Returns:
      float64 `[R, C]`; rows sum to 1.

    Raises:
      UserError: a person has one recording only, which would be its own average.
    """
    names, index, counts = np.unique(np.asarray(persons), return_inverse=True, return_counts=True)
    if counts.min(initial=2) < 2:
        few = names[counts < 2]
        raise UserError(
            f"--adapt=person takes a person's average over recordings, but {len(few)} of {len(names)} persons have one "
            f"only ({', '.join(map(str, few[:3]))}): use --adapt=statistics."
        )
    total = np.zeros((len(names), log_probability.shape[1]))
    np.add.at(total, index, log_probability)
    return metrics.softmax(log_probability - (total / counts[:, None])[index])
