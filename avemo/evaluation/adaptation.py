"""Fits a face network to people and cameras that it has not seen, without any of their labels.

`statistics`: BatchNorm normalises by the mean and variance of these faces and their mirror images (AdaBN, Li et al.
2016, arXiv 1603.04779), joined over batches (Wu and Johnson 2021, arXiv 2105.07576, section 3).
`person`: each person's average prediction is subtracted from each of their recordings (`avemo.tasks.frame_pooling`). A
resting face that looks like one class to the network does so in every recording of that person. The class shares of
the training data are subtracted with it.
Both look at all recordings of a split before they score any, so neither works on a running stream.
"""

import itertools
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from avemo.data import mixture
from avemo.models import expression
from media.errors import UserError, unknown
from media.images import resize

KINDS = ("statistics", "person")
BATCHES, ROWS = 8, 128  # at most this many batches of this many faces


def parse(text: str) -> tuple[str, ...]:
    """The kinds that `--adapt=KIND[,KIND]` names.

    Raises:
      UserError: an unknown kind.
    """
    kinds = tuple(name for name in text.split(",") if name)
    for name in kinds:
        if name not in KINDS:
            raise unknown("--adapt", name, KINDS)
    return kinds


def faces(folder: str, split: str, image_size: int) -> np.ndarray:
    """Up to 1024 faces, evenly spread over a split of prepared faces or clips: uint8 `[N, S, S, 3]`.

    Raises:
      UserError: the split has no face, or the data is of another kind.
    """
    data = mixture.open_split(folder, split)
    field = next((name for name in ("image", "frames", "images") if name in data.features), None)
    if field is None:
        raise UserError(f"{folder} has no faces (it has {', '.join(sorted(data.features))}).")
    places = []
    for number in range(len(data)):
        (mask,) = data.fields(number, ["face_mask"]) if field == "frames" else (np.ones(3 if field == "images" else 1),)
        places += [(number, int(index)) for index in np.flatnonzero(mask)]
    if not places:
        raise UserError(f"{folder}: no frame of split {split!r} has a face to adapt to.")
    chosen = np.linspace(0, len(places) - 1, min(len(places), BATCHES * ROWS)).astype(int)
    images = []
    for number, group in itertools.groupby((places[i] for i in chosen), operator.itemgetter(0)):
        (stored,) = data.fields(number, [field])  # once for all of its faces
        images += [resize(stored.decode(index), image_size) for _, index in group]
    return np.stack(images)


def statistics(config: ConfigDict, variables: Mapping[str, Any], images: np.ndarray) -> dict[str, Any]:
    """The variables with BatchNorm's means and variances replaced by those of `images`; parameters are left alone.

    Args:
      config: the config of a face run (teacher, student).
      variables: {"params", "batch_stats"}.
      images: uint8 `[N, S, S, 3]`; whole batches are taken, each spread over all of them.

    Raises:
      UserError: the network has no BatchNorm.
    """
    if not variables.get("batch_stats"):
        raise UserError(f"{config.model.name} has no BatchNorm: there are no statistics to adapt.")
    model = {name: value for name, value in config.model.items() if not name.startswith("freeze_")}
    network = expression.build({**model, "bn_momentum": 0.0})  # keeps the batch's own statistics

    @jax.jit
    def batch_statistics(images: jax.Array) -> Any:
        images = jnp.concatenate([images, images[:, :, ::-1]])
        rngs = {"dropout": jax.random.key(0)}
        return network.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[1]["batch_stats"]

    # Neighbours are frames of one recording: a batch takes every n-th face, not n in a row.
    count = max(1, len(images) // ROWS)
    rows = len(images) // count
    found = [jax.device_get(batch_statistics(images[i : i + rows * count : count])) for i in range(count)]
    batches = [traverse_util.flatten_dict(one) for one in found]
    values = {path: np.stack([np.float64(batch[path]) for batch in batches]) for path in batches[0]}
    joined = {path: value.mean(0) for path, value in values.items()}
    for path in joined:
        if path[-1] == "var":  # of all batches together: within them and between their means
            joined[path] = joined[path] + values[*path[:-1], "mean"].var(0)
    joined = {path: value.astype(np.float32) for path, value in joined.items()}
    return {**variables, "batch_stats": traverse_util.unflatten_dict(joined)}
