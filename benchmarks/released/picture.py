"""README's picture and animation: a GRID clip through the release that avemo carries.

    python -m benchmarks.released.picture --source=../shared/data/grid

GRID: Cooke, Barker, Cunningham, Shao 2006, zenodo 3625687, CC BY 4.0.
"""

import argparse
import pathlib
import sys
import tempfile

from PIL import Image

from avemo import predict
from avemo.runs import shipped
from media import video
from media.errors import UserError

WIDTH, RATE, MOST = 420, 6.0, 1_500_000  # pixels, pictures per second, bytes of the animation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="../shared/data/grid", help="folder of GRID's clips")
    parser.add_argument("--clip", default="", help="the clip's name (default: the first)")
    parser.add_argument("--output", default="docs/images", help="folder for predict.png and predict.webp")
    arguments = parser.parse_args()
    try:
        clips = sorted(p for p in pathlib.Path(arguments.source).rglob("*.mpg") if arguments.clip in ("", p.name))
        if not clips:
            raise UserError(f"--source={arguments.source} holds no clip {arguments.clip or '*.mpg'} of GRID.")
        with tempfile.TemporaryDirectory() as folder:
            predict.predict(shipped.RUN, str(clips[0]), folder, files=("overlay",), fps=RATE * 2)
            pictures = [frame.image for frame in video.decode(pathlib.Path(folder) / "overlay.mp4", fps=RATE)]
        save([Image.fromarray(picture) for picture in pictures], pathlib.Path(arguments.output))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def save(pictures: list[Image.Image], folder: pathlib.Path) -> None:
    """Writes the last picture but a few as PNG, and all of them as an animation."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures[-3].save(folder / "predict.png", optimize=True)
    height = round(pictures[0].height * WIDTH / pictures[0].width)
    small = [picture.resize((WIDTH, height), Image.Resampling.LANCZOS) for picture in pictures]
    path = folder / "predict.webp"
    small[0].save(
        path, save_all=True, append_images=small[1:], duration=round(1000 / RATE), loop=0, quality=60, method=6
    )
    if path.stat().st_size > MOST:
        raise UserError(f"{path} has {path.stat().st_size} bytes, more than {MOST}: make it shorter or smaller.")


if __name__ == "__main__":
    sys.exit(main())
