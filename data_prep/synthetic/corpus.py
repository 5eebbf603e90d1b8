"""Makes the whole corpus: plans the files, shares them out to processes, and puts the finished folder in place."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import pathlib
import shutil

import cv2
import soundfile

from data_prep.synthetic import latent, raters, recording, stills
from media.errors import UserError
from media.records import SYNTHETIC_MANIFEST

VERSION = 3  # of the drawing: a folder made by another version is another corpus


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to make; the defaults are the demo's corpus.

    Attributes:
      seed: of everything.
      recordings: recordings for train, dev and test, at most nine each (participants of RECOLA's challenge split).
      seconds: length of a recording (RECOLA: 300).
      size: side of a video frame, pixels.
      faces: labelled stills for training and validation (AffectNet's layout).
      face_size: side of a still, pixels (AffectNet: 224).
      triplets: comparison triplets for training and test (FEC's layout).
      pool: pictures that the triplets are drawn from, training and test.
      unlabelled: faces without labels.
      delay: the raters' common delay, seconds.
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

    def __post_init__(self):
        if not all(1 <= n <= len(known) for n, known in zip(self.recordings, recording.SPLITS.values(), strict=True)):
            raise UserError(f"recordings={self.recordings}: each split holds 1 to 9 participants, e.g. 9,5,4")
        if not 8 <= self.seconds <= 600:
            raise UserError(f"seconds={self.seconds:g}: a recording lasts 8 to 600 seconds")
        if not 96 <= self.size <= 480 or self.size % 2:
            raise UserError(f"size={self.size}: a video frame's side is an even number of pixels from 96 to 480")
        if not 96 <= self.face_size <= 480:
            raise UserError(f"face_size={self.face_size}: a still's side is 96 to 480 pixels")
        if min(self.pool) < 48:
            raise UserError(f"pool={self.pool}: triplets need at least 48 pictures to be drawn from, per split")
        if min(*self.faces, *self.triplets, self.unlabelled, self.seed) < 0 or not 0 <= self.delay <= 5:
            raise UserError("seed, faces, triplets and unlabelled are at least 0, and delay is 0 to 5 seconds")

    def participants(self) -> dict[str, tuple[int, ...]]:
        """Returns the participants of each split."""
        return {split: ids[:n] for (split, ids), n in zip(recording.SPLITS.items(), self.recordings, strict=True)}


def generate(output, settings: Settings | None = None, *, workers: int = 2, progress=None, **changes) -> dict:
    """Writes the synthetic corpus to `output` and returns its manifest.

    The folder appears all at once, when it is complete; where it is already there with the same settings nothing is
    done. The bytes depend on the settings and the installed codecs, not on `workers`.

    Args:
      output: folder to make; the triplets' `file://` URLs name it, so make it where it will stay.
      settings: what to make; or give single fields of `Settings` as keywords.
      workers: processes; 1 works in this one.
      progress: called with (jobs done, jobs) after each job.
      **changes: fields of `Settings` to change.

    Returns:
      `{"version", "settings", "participants", "ceiling", "files"}`.

    Raises:
      UserError: a setting is out of range, or `output` holds something else.
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


def _existing(output: pathlib.Path, asked: dict) -> dict | None:
    """Returns the manifest of a finished folder with the same settings, nothing where there is none to respect."""
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


def _jobs(root: pathlib.Path, settings: Settings) -> list[functools.partial]:
    """Returns the calls that make every file; the long ones first, so that processes end together."""
    seed, takes, jobs = settings.seed, stills.TAKES, []
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
            part = labels[first : first + takes]
            jobs.append(functools.partial(stills.write_affectnet, folder, seed, split, first, part, settings.face_size))
    for split, count in zip(("train", "test"), settings.pool, strict=True):
        folder = root / "fec" / "images" / split
        folder.mkdir(parents=True)
        for first in range(0, count, takes):
            some = min(takes, count - first)
            jobs.append(functools.partial(stills.write_pool, folder, seed, split, first, some, settings.size))
    (root / "unlabelled").mkdir()
    for first in range(0, settings.unlabelled, takes):
        some = min(takes, settings.unlabelled - first)
        jobs.append(functools.partial(stills.write_unlabelled, root / "unlabelled", seed, first, some, settings.size))
    return jobs


def _call(job: functools.partial):
    return job()


@contextlib.contextmanager
def _mapper(workers: int):
    """Yields `map` over processes. They are spawned: a fork of a process that holds JAX's threads may never return."""
    if workers <= 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        try:
            yield functools.partial(pool.map, chunksize=1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fill(root: pathlib.Path, final: pathlib.Path, settings: Settings, workers: int, progress) -> dict:
    """Writes everything under `root` and returns participants, ceiling and the number of files."""
    root.mkdir(parents=True)
    jobs = _jobs(root, settings)
    results = []
    with _mapper(workers) as mapper:
        for result in mapper(_call, jobs):
            results.append(result)
            if progress is not None:
                progress(len(results), len(jobs))
    boxes = {"train": [], "test": []}
    for job, result in zip(jobs, results, strict=True):
        if job.func is stills.write_pool:
            boxes[job.args[2]] += result
    for split, count in zip(boxes, settings.triplets, strict=True):
        path = root / "fec" / f"faceexp-comparison-data-{split}-public.csv"
        _write_triplets(path, final / "fec" / "images" / split, settings.seed, split, count, boxes[split])
    traces = [result for job, result in zip(jobs, results, strict=True) if job.func is recording.write]
    limits = raters.ceiling(*zip(*traces, strict=True), settings.delay)
    stills.dump(root / "ceiling.json", {"delay_seconds": settings.delay, "ccc": limits})
    files = sum(path.is_file() for path in root.rglob("*"))
    return {"participants": settings.participants(), "ceiling": limits, "files": files}


def _write_triplets(path, images, seed: int, split: str, count: int, boxes: list[list[float]]) -> None:
    """Writes one of FEC's tables: no header, three times (URL, box), the type, then (annotator, label) pairs."""
    rng = latent.stream(seed, "fec", split, "annotators")
    rows = []
    for three, _, kind, votes in stills.draw_triplets(seed, split, count, len(boxes)):
        fields = []
        for number in three:
            fields += [(images / f"{number:05d}.jpg").as_uri(), *map(str, boxes[number])]
        fields.append(kind)
        people = rng.choice(20, len(votes), replace=False)
        # Rows are ragged as in FEC: most triplets were seen by six annotators, some by five.
        for person, vote in list(zip(people, votes, strict=True))[: rng.integers(5, 7)]:
            fields += [f"annotator_{person:02d}", str(vote)]
        rows.append(",".join(fields))
    path.write_text("".join(row + "\n" for row in rows))
