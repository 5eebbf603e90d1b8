"""PyTorch data sets over the same files, as PyTorch's users write them: PIL for pictures, NumPy for the rest."""

import pathlib

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import torch

WINDOWS, ROWS = 32, 96  # of a clip's log-mel; rows of 10 ms in a window


class Files(torch.utils.data.Dataset):
    """The same JPEGs read by PIL, with the same augmentations."""

    def __init__(self, folder: pathlib.Path, strength: dict[str, float], size: int):
        self._paths = [str(path) for path in sorted(folder.iterdir())]
        self._strength, self._size = strength, size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        strength, draw = self._strength, torch.rand(6).tolist()
        with open(self._paths[index], "rb") as file:
            image = PIL.Image.open(file).convert("RGB")
        scale = 1 - strength["crop"] * draw[0]
        w, h = round(image.width * scale), round(image.height * scale)
        x, y = int(draw[1] * (image.width - w + 1)), int(draw[2] * (image.height - h + 1))
        image = image.crop((x, y, x + w, y + h)).resize((self._size, self._size), PIL.Image.Resampling.BILINEAR)
        if draw[3] < 0.5:
            image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        image = PIL.ImageEnhance.Brightness(image).enhance(1 + strength["colour"] * (2 * draw[4] - 1))
        image = PIL.ImageEnhance.Contrast(image).enhance(1 + strength["colour"] * (2 * draw[5] - 1))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), 0


class Windows(torch.utils.data.Dataset):
    """`WINDOWS` windows of a clip's log-mel from a random start, float32 `[N, 96, 64]`."""

    def __init__(self, folder: pathlib.Path):
        self._paths = [str(path) for path in sorted(folder.iterdir())]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        rows = np.load(self._paths[index])
        starts = (np.arange(WINDOWS) * ROWS + np.random.randint(ROWS)) % (len(rows) - ROWS)
        return torch.from_numpy(np.stack([rows[start : start + ROWS] for start in starts]))


class Sequences(torch.utils.data.Dataset):
    """Windows of recordings in memory, float32 `[T, 256]`."""

    def __init__(self, folder: pathlib.Path, length: int):
        self._recordings = [np.load(path) for path in sorted(folder.iterdir())]
        self._length = length

    def __len__(self) -> int:
        return 4 * len(self._recordings)

    def __getitem__(self, index: int) -> torch.Tensor:
        recording = self._recordings[index % len(self._recordings)]
        start = np.random.randint(max(1, len(recording) - self._length + 1))
        window = recording[start : start + self._length]
        return torch.from_numpy(np.pad(window, ((0, self._length - len(window)), (0, 0))))
