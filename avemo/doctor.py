"""`python -m avemo.doctor`: what this machine has, what JAX uses of it, and what is broken: a page for bug reports.

It looks for every module before it imports it, so that it also runs in a broken environment.
"""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping

from avemo.runs import installed
from avemo.version import __version__
from media import caches

# Modules that avemo cannot work without, and the distributions that bring them.
PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax.checkpoint": "orbax-checkpoint",
    "grain": "grain",
    "tensorflow_datasets": "tensorflow-datasets",
    "array_record": "array_record",
    "numpy": "numpy",
    "scipy": "scipy",
    "librosa": "librosa",
    "soundfile": "soundfile",
    "av": "av",
    "ml_collections": "ml-collections",
    "matplotlib": "matplotlib",
    "pandas": "pandas",
}
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "jax-rocm60-plugin", "jax-metal")
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le")
LITTLE_DISK = 5.0  # GiB
_ROOT = str(pathlib.Path(__file__).resolve().parents[1])
_INSTALL = "pip install -r requirements.txt"
# JAX is asked in a separate process, because a mismatched plugin can end the process.
_ASK_JAX = """
import jax
from avemo.ops import hardware
assert float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8)))) == 512.0
print(hardware.summary())
print(hardware.unused() or "")
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
      what: the thing looked at.
      text: what was found.
      remedy: what to do about it; empty if all is well.
      broken: whether avemo cannot work like this. A remedy without it is advice.
    """

    what: str
    text: str
    remedy: str = ""
    broken: bool = False


def examine() -> list[Finding]:
    """Looks at everything; takes some seconds, because it starts JAX."""
    return [*_system(), *_packages(), *_accelerator(), *_media(), *_places()]


def page(findings: list[Finding]) -> str:
    """The findings as text, one per line, each with its remedy beneath it."""
    lines = []
    for finding in findings:
        mark = "BROKEN" if finding.broken else "look" if finding.remedy else "ok"
        lines.append(f"{mark:7}{finding.what:22}{finding.text}")
        if finding.remedy:
            lines.append(f"{'':7}{'':22}-> {finding.remedy}")
    broken = sum(finding.broken for finding in findings)
    lines.append("everything works" if not broken else f"{broken} broken: see the lines marked BROKEN")
    return "\n".join(lines)


def _system() -> Iterator[Finding]:
    yield Finding("avemo", f"{__version__} in {_ROOT}")
    version = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("python", f"{version} at {sys.executable}", "install Python 3.11 or newer" if old else "", old)
    yield Finding("system", f"{platform.platform()}, {os.cpu_count()} cores")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    found: list[str] = []
    missing: list[str] = []
    for module, distribution in PACKAGES.items():
        version = _version(distribution)
        (found if version else missing).append(f"{distribution} {version}" if version else distribution)
        if version and (error := _import_error(module)):
            yield Finding(
                distribution, f"{version} cannot be imported: {error}", f"pip install -U {distribution}", True
            )
    yield Finding("packages", ", ".join(found))
    if missing:
        yield Finding("packages missing", ", ".join(missing), _INSTALL, True)
    installed = [f"{name} {version}" for name in OPENCV if (version := _version(name))]
    error = _import_error("cv2")
    yield Finding(
        "OpenCV",
        ", ".join(installed) or "none",
        f"it cannot be imported ({error}): pip install opencv-python-headless" if error else "",
        bool(error),
    )
    version = _version("simplejpeg")
    without = (
        "training reads pictures otherwise than with simplejpeg, and scores differ a little: pip install simplejpeg"
    )
    yield Finding("JPEG decoder", f"simplejpeg {version}" if version else "OpenCV", "" if version else without)


def _import_error(module: str) -> str | None:
    """Why a module cannot be imported, or None. JAX itself is tried in `_accelerator`."""
    if module.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow_datasets"):
        return None if importlib.util.find_spec(module.split(".")[0]) else "not found"
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken package raises is the finding
        return f"{type(error).__name__}: {error}"
    return None


def _accelerator() -> Iterator[Finding]:
    jaxlib = _version("jaxlib")
    for name in PLUGINS:
        version = _version(name)
        if not version:
            continue
        # JAX silently ignores a plugin of another release, and runs on the CPU.
        other = name.startswith("jax-cuda") and jaxlib is not None and version.split(".")[:2] != jaxlib.split(".")[:2]
        extra = name.split("-")[1]
        remedy = f'it is not of jaxlib {jaxlib}, so JAX ignores it: pip install "jax[{extra}]=={_version("jax")}"'
        yield Finding(name, version, remedy if other else "", other)
    asked = ", ".join(
        f"{name}={os.environ[name]}"
        for name in ("JAX_PLATFORMS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")
        if name in os.environ
    )
    if asked:
        yield Finding("environment", asked)
    ran = subprocess.run(
        [sys.executable, "-c", _ASK_JAX],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([_ROOT, *sys.path]), "JAX_TRACEBACK_FILTERING": "off"},
        check=False,
    )
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or [f"ended with status {ran.returncode}"])[-1]
        platforms = os.environ.get("JAX_PLATFORMS", "")
        other = platforms not in ("", "cpu")
        begin = f"does not start with JAX_PLATFORMS={platforms}: " if other else ""
        yield Finding("JAX", begin + said, "unset JAX_PLATFORMS" if other else _INSTALL, True)
        return
    summary, unused = ran.stdout.split("\n")[-3:-1]
    yield Finding("JAX runs on", summary)
    if unused:
        what, _, remedy = unused.partition(" Run: ")
        yield Finding("accelerator", what, remedy, True)


def _media() -> Iterator[Finding]:
    if _version("av") and not _import_error("av"):
        av = importlib.import_module("av")
        lacking = [name for name in DECODERS if name not in av.codecs_available]
        libraries = ", ".join(f"{name} {'.'.join(map(str, v))}" for name, v in sorted(av.library_versions.items())[:2])
        yield Finding(
            "decoders",
            f"PyAV {av.__version__} ({libraries}): {', '.join(n for n in DECODERS if n not in lacking)}",
            f"lacks {', '.join(lacking)}: pip install -U --force-reinstall av" if lacking else "",
        )
    if not _import_error("cv2") and not _import_error("numpy") and not _import_error("av"):
        faces, numpy = importlib.import_module("media.faces"), importlib.import_module("numpy")
        name = faces.FaceOptions().detector
        try:
            faces.DETECTORS[name](faces.FaceOptions())(numpy.zeros((240, 320, 3), "uint8"))
        except Exception as error:  # whatever the detector raises is the finding
            yield Finding("face detector", f"{name}: {error}", "see docs/data.md for the detectors", True)
        else:
            yield Finding("face detector", name)


def _places() -> Iterator[Finding]:
    places: Mapping[str, tuple[pathlib.Path, str]] = {
        "working folder": (pathlib.Path.cwd(), "name a writable folder with --workdir"),
        "temporary folder": (pathlib.Path(tempfile.gettempdir()), "set TMPDIR to a writable folder"),
        "cache folder": (
            _cache(),
            "set AVEMO_CACHE to a writable folder: installed releases are kept there",
        ),
    }
    for what, (folder, remedy) in places.items():
        writable, free = caches.is_writable(folder), shutil.disk_usage(caches.nearest(folder)).free / 2**30
        little = writable and free < LITTLE_DISK
        yield Finding(
            what,
            f"{folder}, {f'{free:.1f} GiB free' if writable else 'not writable'}",
            remedy if not writable else "free some space: a run may take several GiB" if little else "",
            what == "temporary folder" and not writable,
        )


def _cache() -> pathlib.Path:
    try:
        return installed.folder()
    except RuntimeError:  # the user has no home
        return pathlib.Path("/.cache/avemo")


def main() -> int:
    """Prints the page; returns 1 if something is broken."""
    caches.make_writable()
    findings = examine()
    print(page(findings))
    return int(any(finding.broken for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
