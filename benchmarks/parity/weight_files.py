"""`python -m benchmarks.parity.weight_files`: writes tests/golden/weights, tiny files in the formats that we read.

PyTorch and TensorFlow, if installed, write two formats each; the tests read them with neither. The values are drawn
from the tensors' names, so the tests know them.
"""

import importlib.util
from pathlib import Path

import numpy as np

from benchmarks.parity import weights

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights"
SEED = 0

TORCH_SHAPES = {
    "stem.conv.weight": (4, 3, 3, 3),
    "stem.bn.weight": (4,),
    "stem.bn.bias": (4,),
    "stem.bn.running_mean": (4,),
    "stem.bn.running_var": (4,),
    "last_linear.weight": (5, 4),
    "logits.weight": (2, 5),
}
TF_SHAPES = {
    "vggish/conv1/weights": (3, 3, 1, 2),
    "vggish/conv1/biases": (2,),
    "vggish/conv3/conv3_1/weights": (3, 3, 2, 4),
    "vggish/fc1/fc1_1/weights": (8, 16),
}


def values(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Returns the tensors of a file, drawn from a standard normal by seed and name."""
    return {name: 10 * weights.draw((name, "bias"), shape, SEED) for name, shape in shapes.items()}


def write_torch() -> None:
    """Writes the `.pt` files. As in real ones, one tensor is a transposed view and one is a batch counter."""
    import torch

    state = {name: torch.tensor(value) for name, value in values(TORCH_SHAPES).items()}
    state["last_linear.weight"] = state["last_linear.weight"].T.contiguous().T
    state["stem.bn.num_batches_tracked"] = torch.tensor(7)
    torch.save(state, FOLDER / "zip.pt")
    torch.save(state, FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"state": state, "epoch": 3}, FOLDER / "nested.pt")
    torch.save(torch.nn.Linear(2, 2), FOLDER / "module.pt")


def write_tensorflow() -> None:
    """Writes `v1.ckpt`, and `v2.index` with its data file."""
    import tensorflow as tf

    for version, name in ((1, "v1.ckpt"), (2, "v2")):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            for variable, value in values(TF_SHAPES).items():
                tf.compat.v1.get_variable(variable, initializer=tf.constant(value))
            tf.compat.v1.train.create_global_step()
            session.run(tf.compat.v1.global_variables_initializer())
            saver = tf.compat.v1.train.Saver(write_version=version)
            saver.save(session, str(FOLDER / name), write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package, write in (("torch", write_torch), ("tensorflow", write_tensorflow)):
        if importlib.util.find_spec(package):
            write()
