"""Scores of several seeds at once, and the best variables of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from avemo.data import features
from avemo.tasks import Scoring
from avemo.tasks.audiovisual import AudioVisualStage, inputs
from avemo.tasks.audiovisual_data import FeatureData, predict_recordings, require_labels, score_outputs
from avemo.training import flops, seed_mesh
from avemo.training.seed_step import over_seeds
from avemo.training.state import TrainState

Scored = tuple[dict[str, float], dict[str, np.ndarray]]  # metrics and predictions of one seed


class Best:
    """The best variables of each seed so far, and what they scored.

    Attributes:
      variables: stacked `[slots, ...]`.
      steps: int `[seeds]`, the step of each.
      scored: for each seed its scores by split.
    """

    def __init__(self, seeds: int, slots: int, variables: Any):
        self.variables, self.steps = variables, np.zeros(seeds, int)
        self.scored: list[dict[str, Scored]] = [{} for _ in range(seeds)]
        self._scores, self._slots = np.full(seeds, -np.inf), slots

    def update(self, number: int, variables: Any, found: Mapping[str, list[Scored]], metric: str) -> None:
        """Takes the variables of the seeds that score at least as much as before, by `metric`, a `split/name`."""
        scores = np.array([_score(found, seed, metric, number) for seed in range(len(self.steps))])
        better = scores >= self._scores  # the later of equal ones, as the checkpoints of a run alone are ranked
        self._scores, self.steps = np.where(better, scores, self._scores), np.where(better, number, self.steps)
        self.variables = _choose(jnp.asarray(seed_mesh.padded(better, 0, self._slots)), variables, self.variables)
        for seed in np.flatnonzero(better):
            self.scored[seed] = {split: rows[seed] for split, rows in found.items()}


def _score(found: Mapping[str, list[Scored]], seed: int, metric: str, number: int) -> float:
    """A seed's score by `metric`; the step's number if there is none, so that the latest is the best."""
    values = {f"{split}/{name}": value for split, rows in found.items() for name, value in rows[seed][0].items()}
    score = values.get(metric, float(number))
    return score if np.isfinite(score) else -np.inf


class Evaluator:
    """Scores all seeds on a split as the stage's own evaluation does; each batch is predicted once for all seeds.

    Seeds of several folds have different splits. Then every recording that is in the split of any of them is predicted.
    """

    def __init__(self, stage: AudioVisualStage, data: Sequence[FeatureData], over: Mesh | None):
        def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
            out = over_seeds(lambda v: stage.predict(v, batch), variables)
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)  # the batch axis leads

        self._mapped = seed_mesh.map_prediction(predict, over, stage.config.parallel)
        self._data, self._config = data, stage.config

    def __call__(self, variables: Any, split: str, hide: Sequence[str] = ()) -> list[Scored]:
        """`(metrics, predictions)` of each seed; the streams of `hide` are masked throughout."""
        parts = [data.recordings(split) for data in self._data]
        for recordings in parts:
            require_labels(recordings, self._config)
        every = list({id(recording): recording for recordings in parts for recording in recordings}.values())

        def predict(variables: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            hidden = {f"{name}_mask": np.zeros_like(batch[f"{name}_mask"]) for name in hide}
            out = self._mapped(variables, {**batch, **hidden})
            return {name: np.moveaxis(x, 1, 2) for name, x in out.items()}  # time leads the seeds

        outputs = predict_recordings(predict, variables, every, self._config)
        found = dict(zip(map(id, every), outputs, strict=True))
        return [
            score_outputs(
                [{k: v[:, seed] for k, v in found[id(recording)].items()} for recording in recordings],
                *(recordings, self._config, Scoring(), data.class_names),
            )
            for seed, (data, recordings) in enumerate(zip(self._data, parts, strict=True))
        ]


@jax.jit
def _choose(better: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)


@jax.jit
def variables_of(state: TrainState) -> dict[str, Any]:
    """A copy of the stacked variables that are evaluated; the state's own buffers go to the next step."""
    return jax.tree.map(jnp.copy, state.variables)


def flops_per_frame(stage: AudioVisualStage, data: FeatureData, variables: Any) -> int:
    """Operations of the forward pass of one sequence, per frame."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), variables)
    length = stage.config.data.sequence_length
    streams = data.source.streams
    row = features.sequence(data.recordings("train")[0], 0, length, 0.0, streams)
    batch = {k: jax.ShapeDtypeStruct((1, *row[k].shape), row[k].dtype) for k in inputs(streams)}
    return round(flops.flops(stage.predict, one, batch) / length)
