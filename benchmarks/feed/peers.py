"""One measurement of PyTorch, in a process of its own: `python -m benchmarks.feed.peers {step,input,train} JSON`.

The networks are twins of ours, or of the same size, with random weights. The data are the same files, read by a
`DataLoader` as its users write it: PIL for pictures, NumPy for the rest. Prints examples/s.
"""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.feed.peer_data import ROWS, WINDOWS, Files, Sequences, Windows  # noqa: E402
from benchmarks.parity import references  # noqa: E402

SECONDS, WARM_UP = 5.0, 3
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BANDS = 64


@dataclasses.dataclass
class Twin:
    """A network, its data and its loss.

    Attributes:
      net: the network.
      data: what a DataLoader reads.
      batch: rows of a batch.
      examples: examples that a row counts for.
      loss: of the network and a batch on the device.
    """

    net: nn.Module
    data: torch.utils.data.Dataset
    batch: int
    examples: int
    loss: Callable[[nn.Module, Any], torch.Tensor]


class DenseBlock(nn.Module):
    """Five bottleneck layers of growth 64, as the teacher's neck."""

    def __init__(self, channels: int = 512, layers: int = 5, growth: int = 64):
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            wide = 4 * growth
            before = (nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, wide, 1, bias=False))
            after = (nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, growth, 3, padding=1, bias=False))
            self.layers.append(nn.Sequential(*before, *after))
            channels += growth
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[B, C, H, W]` with all layers' channels."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Teacher(nn.Module):
    """Inception-ResNet-v1 to `mixed_7a`, 1×1 to 512, the dense block, 1×1 to 128, pooled; heads of 32 and 8."""

    def __init__(self) -> None:
        super().__init__()
        trunk = references.facenet().InceptionResnetV1(dropout_prob=0.0)
        names = "conv2d_1a conv2d_2a conv2d_2b maxpool_3a conv2d_3b conv2d_4a conv2d_4b repeat_1 mixed_6a repeat_2"
        dense = DenseBlock()
        self.body = nn.Sequential(
            *(getattr(trunk, name) for name in [*names.split(), "mixed_7a"]),
            *(nn.Conv2d(1792, 512, 1), nn.BatchNorm2d(512), nn.ReLU()),
            dense,
            *(nn.Conv2d(dense.channels, 128, 1), nn.BatchNorm2d(128), nn.ReLU()),
        )
        self.embedding, self.classes = nn.Linear(128, 32), nn.Linear(128, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns embeddings `[B, 32]` and logits `[B, 8]` of uint8 pictures."""
        x = self.body((x.float() - 127.5) / 128).mean((2, 3)).float()
        return functional.normalize(self.embedding(x), dim=1), self.classes(x)


class Tiny(nn.Module):
    """A network whose step is short, with the teacher's heads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embedding, self.classes = nn.Conv2d(3, 8, 7, 8), nn.Linear(8, 32), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns embeddings `[B, 32]` and logits `[B, 8]` of uint8 pictures."""
        x = functional.relu(self.conv((x.float() - 127.5) / 128)).mean((2, 3))
        return functional.normalize(self.embedding(x), dim=1), self.classes(x)


class Distilled(nn.Module):
    """A student and its frozen teacher."""

    def __init__(self, student: nn.Module, teacher: nn.Module):
        super().__init__()
        self.student, self.teacher = student, teacher.requires_grad_(False)


def faces_loss(faces: int, triplets: int) -> Callable[[nn.Module, Any], torch.Tensor]:
    """Cross-entropy on the first faces, the triplet loss on the next three times `triplets`; KL to a teacher."""

    def loss(net: nn.Module, batch: Any) -> torch.Tensor:
        images, labels = batch
        embedding, logits = net.student(images) if isinstance(net, Distilled) else net(images)
        three = embedding[faces : faces + 3 * triplets].view(-1, 3, embedding.shape[1])
        apart = lambda a, b: (three[:, a] - three[:, b]).square().sum(1)  # noqa: E731
        total = sum(functional.relu(apart(0, 1) - apart(k, 2) + 0.2).mean() for k in (0, 1))
        total = total + 0.1 * functional.cross_entropy(logits[:faces], labels[:faces])
        if isinstance(net, Distilled):
            with torch.no_grad():
                taught, soft = net.teacher.eval()(images)
            total = total + functional.mse_loss(embedding, taught)
            total = total + functional.kl_div((logits / 2).log_softmax(1), (soft / 2).softmax(1), reduction="batchmean")
        return total

    return loss


def faces_twin(files: pathlib.Path, tiny: bool, student: bool) -> Twin:
    """The teacher's twin, or with it the student's."""
    net = Tiny() if tiny else Teacher()
    if student:
        net = Distilled(net, Tiny() if tiny else Teacher())
    faces, triplets, unlabelled = 64, 64, 64 if student else 0
    images = faces + 3 * triplets + unlabelled
    data = Files(files / "faces", {"crop": 0.1, "colour": 0.1}, 140)
    return Twin(net, data, images, 1, faces_loss(faces, triplets))


def audio_twin(files: pathlib.Path, tiny: bool) -> Twin:
    """VGGish and a linear head."""
    width = 1 / 16 if tiny else 1.0
    layers: list[nn.Module] = []
    before = 1
    for size, convolutions in ((64, 1), (128, 1), (256, 2), (512, 2)):
        after = int(size * width)
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2))
    dense = 16 if tiny else 4096
    head = (nn.Linear(24 * before, dense), nn.ReLU(), nn.Linear(dense, dense), nn.ReLU(), nn.Linear(dense, 128))
    net = nn.Sequential(*layers, nn.Flatten(), *head, nn.ReLU(), nn.Linear(128, 2))
    loss = lambda net, batch: net(batch.reshape(-1, 1, ROWS, BANDS)).float().square().mean()  # noqa: E731
    return Twin(net, Windows(files / "log_mel"), 8, WINDOWS, loss)


class Fusion(nn.Module):
    """A GRU for each modality and one over both, with a linear head."""

    def __init__(self, size: int, features: int = 128):
        super().__init__()
        self.size = features
        self.each = nn.ModuleList(nn.GRU(features, size, batch_first=True) for _ in range(2))
        self.joint, self.head = nn.GRU(2 * size, size, batch_first=True), nn.Linear(size, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns traces `[B, T, 2]` of features `[B, T, 2 D]`."""
        parts = [net(part)[0] for net, part in zip(self.each, x.split(self.size, -1), strict=True)]
        return self.head(self.joint(torch.cat(parts, -1))[0])


def fusion_twin(files: pathlib.Path, tiny: bool) -> Twin:
    """Model-level fusion over time."""
    loss = lambda net, batch: net(batch).float().square().mean()  # noqa: E731
    return Twin(Fusion(8 if tiny else 128), Sequences(files / "features", 300), 16, 1, loss)


def twin(task: str, files: pathlib.Path, tiny: bool) -> Twin:
    """The twin of a task."""
    if task in ("teacher", "student"):
        return faces_twin(files, tiny, task == "student")
    return {"audio": audio_twin, "fusion": fusion_twin}[task](files, tiny)


def batches(twin: Twin, workers: int) -> Iterator[Any]:
    """Endless batches of a DataLoader."""
    sampler = torch.utils.data.RandomSampler(twin.data, replacement=True, num_samples=10**9)
    loader = torch.utils.data.DataLoader(
        twin.data, twin.batch, sampler=sampler, num_workers=workers, pin_memory=CUDA, drop_last=True
    )
    return iter(loader)


def place(batch: Any) -> Any:
    """Puts a batch on the device; pictures in channels_last memory."""
    if isinstance(batch, list | tuple):
        return [place(part) for part in batch]
    layout = {"memory_format": torch.channels_last} if batch.ndim == 4 else {}
    return batch.to(DEVICE, non_blocking=True, **layout)


def rate(what: str, twin: Twin, workers: int, bfloat16: bool) -> float:
    """Examples per second of the step alone, of the input alone, or of training."""
    source = batches(twin, workers)
    fixed = place(next(source))
    net = twin.net.to(DEVICE, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=5e-3, momentum=0.9, nesterov=True)

    def step(batch: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bfloat16):
            loss = twin.loss(net, batch)
        loss.backward()
        optimizer.step()

    def once() -> None:
        batch = fixed if what == "step" else place(next(source))
        if what != "input":
            step(batch)

    def wait() -> None:
        if CUDA:
            torch.cuda.synchronize()

    for _ in range(WARM_UP):
        once()
    wait()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for _ in range(4):
            once()
            done += 1
        wait()
    return done * twin.batch * twin.examples / (time.perf_counter() - began)


def main() -> None:
    what, given = sys.argv[1], json.loads(sys.argv[2])
    found = twin(given["task"], pathlib.Path(given["files"]), given["tiny"])
    print(rate(what, found, given["workers"], given["bfloat16"]))


if __name__ == "__main__":
    main()
