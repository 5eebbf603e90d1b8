"""What a stage trains: pure functions that follow from its config alone. Its data is separate (`avemo.tasks.data`)."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avemo.ops import global_batch
from media.errors import UserError

Variables = dict[str, Any]
Sizes = Mapping[str, int]
Spec = dict[str, dict[str, jax.ShapeDtypeStruct]]


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array of a batch."""
    return jax.ShapeDtypeStruct(shape, dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Stage(abc.ABC):
    """One stage of the system. No data set is opened; runs that the config names (a teacher, a fusion) may be.

    A batch is `{stream: {field: array [B, ...]}}`. A stream is what comes from one source: faces, triplets, unlabelled
    faces, clips or sequences.

    Attributes:
      config: the run's config.
    """

    config: ConfigDict
    # Fields of the config that the stage cannot do without, by dotted name.
    required: ClassVar[tuple[str, ...]] = ()
    # Whether an accelerator takes longer to launch a step than to run it.
    short: ClassVar[bool] = False
    # Streams that a batch may have.
    streams: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The stage's name in `config.task`."""
        return self.config.task

    def sizes(self) -> dict[str, int]:
        """The global batch size of each stream, by the config."""
        batch = self.config.data.batch
        return {stream: batch[stream] for stream in self.streams if batch.get(stream)}

    def examples(self, sizes: Sizes) -> int:
        """Examples in a global batch of these sizes, for throughput."""
        return sum(sizes.values())

    @abc.abstractmethod
    def spec(self, sizes: Sizes) -> Spec:
        """Shapes and dtypes of a training batch with `sizes` rows per stream, as `forward` takes it."""

    def input_spec(self, sizes: Sizes) -> Spec:
        """Shapes and dtypes of a batch before `prepare`, of examples that are read from their records."""
        return self.spec(sizes)

    @abc.abstractmethod
    def init(self, key: jax.Array, spec: Spec) -> Variables:
        """Initial variables `{"params": ..., **model_state}` for batches of this spec. Works under `jax.eval_shape`."""

    @abc.abstractmethod
    def forward(
        self, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
    ) -> tuple[dict[str, Any], Any]:
        """Runs the networks on one device's share of a batch, or on a micro-batch of it.

        It is called inside a mapped function whose axis is `device_axis.AXIS`.

        Returns:
          Outputs, float arrays whose leading axis is examples in the batch's order; and the new model state.
        """

    @abc.abstractmethod
    def criterion(self, outputs: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of one device's whole share, and scalars to log; both are global.

        A stream's `weight` (float32 `[B]`, only in a batch that was padded) is 0 for rows that do not count.
        """

    @abc.abstractmethod
    def predict(self, variables: Variables, batch: Any) -> dict[str, jax.Array]:
        """Outputs to score, with a leading batch axis, for one device's share of a batch."""

    def gather(self, stream: str, tables: Mapping[str, Any], draws: Mapping[str, Any]) -> dict[str, Any]:
        """Rows `{field: [B, ...]}` of a stream from its packed tables, in NumPy on the host or in JAX in the step.

        Args:
          stream: the stream's name.
          tables: its arrays (`avemo.data.layouts`).
          draws: `index` int32 `[B]`, and `start` if an example is a part of a record.
        """
        raise NotImplementedError(f"{self.name} has no packed form of {stream}")

    def augment(self, batch: Any, key: jax.Array) -> Any:
        """What training does to one device's share of a batch before the networks see it."""
        del key
        return batch

    def prepare(self, batch: Any, constants: Any, key: jax.Array) -> tuple[Any, Any]:
        """One device's share of a batch as `forward` takes it, and the constants that the loss needs.

        Streams that lie on the devices are gathered from `constants["tables"]`. Examples are augmented by keys that
        follow from `key` and their place in the global batch.
        """
        tables = constants.get("tables", {})
        rows = {}
        for stream, share in batch.items():
            if stream in tables:
                gathered = self.gather(stream, tables[stream], share)
                share = gathered if "weight" not in share else {**gathered, "weight": share["weight"]}
            rows[stream] = share
        return self.augment(rows, key), {name: value for name, value in constants.items() if name != "tables"}

    def constants(self) -> dict[str, Any]:
        """Arrays that the loss needs and that never change (a student's frozen teacher)."""
        return {}

    def constants_spec(self) -> dict[str, Any]:
        """Shapes and dtypes of `constants`."""
        return jax.eval_shape(self.constants)

    def weights(self) -> dict[str, str]:
        """Fingerprints of the weights that training starts from, by role."""
        return {}

    def loss(
        self, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """`(loss, (model_state, values))` of one device's share: the criterion of the forward pass."""
        outputs, model_state = self.forward(params, model_state, constants, batch, key)
        loss, values = self.criterion(outputs, batch)
        return loss, (model_state, values)


def keys_of_rows(key: jax.Array, stream: int, count: int) -> jax.Array:
    """A key `[count]` for each of this device's rows of a stream, the same on any number of devices.

    Args:
      key: of the step.
      stream: number of the stream.
      count: rows at hand.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(key, stream), global_batch.row_numbers(count).astype(jnp.uint32)
    )


def check_fields(config: ConfigDict, required: tuple[str, ...]) -> None:
    """Checks that a config has the fields that its stage requires.

    Raises:
      UserError: a field is missing.
    """
    for name in required:
        value: Any = config
        for key in name.split("."):
            if not isinstance(value, ConfigDict) or key not in value:
                raise UserError(f"the config of task {config.get('task')!r} lacks the field {name!r}: add it.")
            value = value[key]
