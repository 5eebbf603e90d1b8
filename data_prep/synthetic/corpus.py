"""Makes the whole corpus: plans the files, writes them in several processes, moves the finished folder into place."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import soundfile

from data_prep.synthetic import latent, raters, recording, stills
from media.errors import UserError
from media.records import SYNTHETIC_MANIFEST
from media.termination import end_with_parent

Progress = Callable[[int, int], None]
Job = Callable[[], Any]
VERSION = 3  # of the drawing; a folder made by another version is another corpus


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to make. The defaults are the demo's corpus.

    Attributes:
      seed: of everything.
      recordings: for train, dev and test, at most nine each (participants of RECOLA's challenge split).
      seconds: length of a recording (RECOLA: 300).
      size: side of a video frame in pixels.
      faces: number of labelled stills for training and validation (AffectNet's layout).
      face_size: side of a still in pixels (AffectNet: 224).
      triplets: number of comparison triplets for training and test (FEC's layout).
      pool: number of pictures from which the triplets are drawn, for training and test.
      unlabelled: number of faces without labels.
      delay: common delay of the raters in seconds.
    """

    seed: int = 0
    recordings: tuple[int, int, int] = (9, 5, 4)
    seconds: float = 45.0
    size: int = 176
    faces: tuple[int, int] = (1600, 304)
    face_size: int = 224
    triplets: tuple[int, int] = (1500, 300)
    pool: tuple[int, int] = (800, 200)
    unlabelled: int = 600
    delay: float = 1.0

    def __post_init__(self) -> None:
        if not all(1 <= n <= len(known) for n, known in zip(self.recordings, recording.SPLITS.values(), strict=True)):
            raise UserError(f"recordings={self.recordings}: each split has 1 to 9 participants, such as 9,5,4")
        if not 8 <= self.seconds <= 600:
            raise UserError(f"seconds={self.seconds:g}: a recording lasts from 8 to 600 seconds")
        if not 96 <= self.size <= 480 or self.size % 2:
            raise UserError(f"size={self.size}: a video frame's side is an even number of pixels from 96 to 480")
        if not 96 <= self.face_size <= 480:
            raise UserError(f"face_size={self.face_size}: a still's side is from 96 to 480 pixels")
        if min(self.pool) < 48:
            raise UserError(f"pool={self.pool}: the triplets of a split need a pool of at least 48 pictures")
        if min(*self.faces, *self.triplets, self.unlabelled, self.seed) < 0 or not 0 <= self.delay <= 5:
            raise UserError("seed, faces, triplets and unlabelled must be at least 0, and delay from 0 to 5 seconds")

    def participants(self) -> dict[str, tuple[int, ...]]:
        """Returns the participants of each split."""
        return {split: ids[:n] for (split, ids), n in zip(recording.SPLITS.items(), self.recordings, strict=True)}


def generate(
    output: str | pathlib.Path,
    settings: Settings | None = None,
    *,
    workers: int = 2,
    progress: Progress | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Writes the synthetic corpus to `output` and returns its manifest.

    The folder appears only when it is complete. If it exists already with the same settings, nothing is done. The bytes
    depend on the settings and the installed codecs, not on `workers`.

    Args:
      output: folder to create. The triplets' `file://` URLs contain it, so create it where it will stay.
      settings: what to make; single fields of `Settings` can be given as keywords instead.
      workers: number of processes; 1 works in this process.
      progress: called with (jobs done, jobs) after each job.
      **changes: fields of `Settings` to change.

    Returns:
      `{"version", "settings", "participants", "ceiling", "files"}`.

    Raises:
      UserError: a setting is out of range, or `output` contains something else.
    """
    settings = dataclasses.replace(settings or Settings(), **changes)
    output = pathlib.Path(output).absolute()
    asked = {"version": VERSION, "settings": json.loads(json.dumps(dataclasses.asdict(settings)))}
    partial = output.with_name(f".{output.name}.partial")
    try:
        made = _existing(output, asked)
        if made is not None:
            return made
        shutil.rmtree(partial, ignore_errors=True)
        manifest = json.loads(json.dumps(asked | _fill(partial, output, settings, workers, progress)))
        stills.dump(partial / SYNTHETIC_MANIFEST, manifest)
        partial.rename(output)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"cannot write {output}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _existing(output: pathlib.Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the manifest of a finished folder with the same settings, or None if the folder is missing or empty."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        made = json.loads((output / SYNTHETIC_MANIFEST).read_text())
        old = made["settings"] | {"version": made["version"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{output} exists and is not a finished synthetic corpus: choose another --output") from None
    new = asked["settings"] | {"version": asked["version"]}
    differing = [f"{key} {old.get(key)} there, {value} asked" for key, value in new.items() if old.get(key) != value]
    if differing:
        raise UserError(f"{output} was made with other settings ({'; '.join(differing)}): choose another --output")
    return made


def _jobs(root: pathlib.Path, settings: Settings) -> list[functools.partial[Any]]:
    """Returns the calls that make every file, the long ones first, so that the processes finish together."""
    seed, takes = settings.seed, stills.TAKES
    jobs: list[functools.partial[Any]] = []
    panel = raters.Panel(delay=settings.delay)
    for ids in settings.participants().values():
        for number in ids:
            jobs.append(
                functools.partial(
                    recording.write,
                    root / "recola",
                    seed,
                    number,
                    settings.seconds,
                    settings.size,
                    panel,
                    latent.Cues(),
                )
            )
    for split, count in zip(("train", "val"), settings.faces, strict=True):
        labels = stills.affectnet_labels(seed, split, count)
        folder = root / "affectnet" / f"{split}_set"
        for name in ("images", "annotations"):
            (folder / name).mkdir(parents=True)
        for first in range(0, count, takes):
            some = labels[first : first + takes]
            jobs.append(functools.partial(stills.write_affectnet, folder, seed, split, first, some, settings.face_size))
    for split, count in zip(("train", "test"), settings.pool, strict=True):
        folder = root / "fec" / "images" / split
        folder.mkdir(parents=True)
        for first in range(0, count, takes):
            number = min(takes, count - first)
            jobs.append(functools.partial(stills.write_pool, folder, seed, split, first, number, settings.size))
    (root / "unlabelled").mkdir()
    for first in range(0, settings.unlabelled, takes):
        number = min(takes, settings.unlabelled - first)
        jobs.append(functools.partial(stills.write_unlabelled, root / "unlabelled", seed, first, number, settings.size))
    return jobs


def _call(job: Job) -> Any:
    return job()


def _start_worker() -> None:
    cv2.setNumThreads(1)
    end_with_parent()


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yields `map` over processes. They are spawned, because a fork of a process with JAX's threads may hang."""
    if workers <= 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            yield functools.partial(pool.map, chunksize=1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fill(
    root: pathlib.Path, final: pathlib.Path, settings: Settings, workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Writes everything under `root` and returns participants, ceiling and the number of files."""
    root.mkdir(parents=True)
    jobs = _jobs(root, settings)
    results = []
    with _mapper(workers) as mapper:
        for result in mapper(_call, jobs):
            results.append(result)
            if progress is not None:
                progress(len(results), len(jobs))
    boxes: dict[str, list[list[float]]] = {"train": [], "test": []}
    for job, result in zip(jobs, results, strict=True):
        if job.func is stills.write_pool:
            boxes[job.args[2]] += result
    for split, count in zip(boxes, settings.triplets, strict=True):
        path = root / "fec" / f"faceexp-comparison-data-{split}-public.csv"
        _write_triplets(path, final / "fec" / "images" / split, settings.seed, split, count, boxes[split])
    recorded = [result for job, result in zip(jobs, results, strict=True) if job.func is recording.write]
    truths, panels = [truth for truth, _ in recorded], [panel for _, panel in recorded]
    limits = raters.ceiling(truths, panels, settings.delay)
    stills.dump(root / "ceiling.json", {"delay_seconds": settings.delay, "ccc": limits})
    files = sum(path.is_file() for path in root.rglob("*"))
    return {"participants": settings.participants(), "ceiling": limits, "files": files}


def _write_triplets(
    path: pathlib.Path, images: pathlib.Path, seed: int, split: str, count: int, boxes: list[list[float]]
) -> None:
    """Writes one of FEC's tables: no header; per row three (URL, box), the type, then (annotator, label) pairs."""
    rng = latent.stream(seed, "fec", split, "annotators")
    rows = []
    for three, _, kind, votes in stills.draw_triplets(seed, split, count, len(boxes)):
        fields = []
        for number in three:
            fields += [(images / f"{number:05d}.jpg").as_uri(), *map(str, boxes[number])]
        fields.append(kind)
        people = rng.choice(20, len(votes), replace=False)
        # Rows are ragged as in FEC: five or six annotators saw each triplet.
        for person, vote in list(zip(people, votes, strict=True))[: rng.integers(5, 7)]:
            fields += [f"annotator_{person:02d}", str(vote)]
        rows.append(",".join(fields))
    path.write_text("".join(row + "\n" for row in rows))
