"""The commands of `launch.py`: their flags and what they call. Imports nothing heavy; each command imports its own."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      text: its help.
      flags: help by flag, or keyword arguments of `add_argument`; the name of a required flag is followed by `!`, that
        of arguments without a flag by `*`.
      run: `(args, overrides)` to a JSON-able result.
    """

    text: str
    flags: Mapping[str, str | dict[str, Any]]
    run: Callable[[argparse.Namespace, list[str]], Any]

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Adds the flags to a parser."""
        for name, entry in self.flags.items():
            keywords = {"help": entry} if isinstance(entry, str) else entry
            if name.endswith("*"):
                parser.add_argument(name.rstrip("*"), nargs="+", **keywords)
                continue
            parser.add_argument(f"--{name.rstrip('!')}", required=name.endswith("!"), **keywords)


def _train(args: argparse.Namespace, overrides: list[str]) -> Any:
    from avemo import configuration
    from avemo.training import loop

    return loop.train_and_evaluate(configuration.load(args.config, overrides), args.workdir)["metrics"]


def _compile(args: argparse.Namespace, overrides: list[str]) -> Any:
    import sys

    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing runs: a free accelerator must not be taken
    from avemo import configuration
    from avemo.aot import compiler
    from avemo.aot import report as aot_report

    progress = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    config = configuration.load(args.config, overrides)
    report = compiler.run(config, args.topology, args.platform, args.search, progress, args.top, args.hbm_only)
    return report if args.json else aot_report.text(report)


def _evaluate(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.evaluation import evaluate

    return evaluate.evaluate(args.workdir, args.data, args.split, args.flip, args.output, args.adapt)


def _extract(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.evaluation import extract

    return str(extract.extract(args.workdir.split(","), args.data, args.output, layer=args.layer))


def _predict(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo import predict

    options = {k: v for k, v in vars(args).items() if v is not None and k not in ("command", "files")}
    return predict.predict(**options, files=args.files.split(",") if args.files else predict.FILES)


def _compare(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.evaluation import compare

    return compare.run(args.runs, args.output, args.split)


def _export(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.release import export

    return export.export(args.workdir, args.output, args.visual, args.audio)


def _release(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.release import install, pack
    from media.errors import UserError

    if args.install and not (args.workdir or args.output):
        return install.install(args.install)
    if args.install or not (args.workdir and args.output):
        raise UserError(
            "release takes --workdir=RUN[,RUN…] --output=FILE.zip to make one, or --install=FILE.zip alone."
        )
    return pack.pack(args.workdir, args.output)


def _sweep(args: argparse.Namespace, overrides: list[str]) -> Any:
    from avemo.sweep import runner

    return runner.run(args.config, args.workdir, overrides, args.shard)


def _demo(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.cli import demo

    return demo.run(args.workdir, args.corpus, args.source, args.seed)


_ENCODERS = {
    "visual": "run folder of a teacher or student in place of the recorded one",
    "audio": "run folder of an audio encoder in place of the recorded one",
}

_HOST = {
    "host_devices": {
        "type": int,
        "metavar": "N",
        "help": "without an accelerator: split each batch over N devices made of this host's cores (default: one)",
    }
}

COMMANDS = {
    "train": Command(
        "Train one stage; resumes where it stopped. Override fields by --config.path.to.field=value.",
        {"config!": "config file, FILE.py[:variant]", "workdir!": "run folder, local or gs://", **_HOST},
        _train,
    ),
    "compile": Command(
        "Compile a training step for a TPU slice, on any host and without data: does it fit, what bounds its speed.",
        {
            "config!": "config file, FILE.py[:variant]",
            "topology!": "TPU version and shape, v4, v5e, v5p or v6e: v5e:2x4; with --platform=cuda the number of GPUs",
            "platform": {"choices": ("tpu", "cuda"), "default": "tpu", "help": "cuda is lowered only (default: tpu)"},
            "search": {"action": "store_true", "help": "find the largest batch a chip"},
            "top": {"type": int, "default": 0, "metavar": "N", "help": "list the N instructions that move most bytes"},
            "hbm_only": {"action": "store_true", "help": "leave a TPU's fast memory unused, to see all the traffic"},
            "json": {"action": "store_true", "help": "print the figures as JSON, sizes in bytes"},
        },
        _compile,
    ),
    "evaluate": Command(
        "Score a run's best checkpoint on its own data, or on other shards: another corpus, other classes.",
        {
            "workdir!": "run folder",
            "data": "prepared shards (default: those of the run)",
            "split": "one split (default: all but train)",
            "flip": {"action": "store_true", "help": "of faces: the mean over each picture and its mirror image"},
            "adapt": {
                "default": "",
                "metavar": "KIND[,KIND]",
                "help": "of faces, without their labels: statistics (BatchNorm's, of these faces), person (less each "
                "person's average)",
            },
            "output": "folder for the predictions, SPLIT.npz (default: the run's own predictions/, for its own data)",
            **_HOST,
        },
        _evaluate,
    ),
    "extract": Command(
        "Write per-frame features of frozen encoders as shards.",
        {
            "workdir!": "run folder of a visual or audio encoder; both: DIR,DIR",
            "data!": "prepared clips",
            "output!": "folder for the features",
            "layer": {
                "choices": ("embedding", "logits"),
                "default": "embedding",
                "help": "what the features are; logits: what the encoders' classes say (default: embedding)",
            },
            **_HOST,
        },
        _extract,
    ),
    "predict": Command(
        "A video, a sound file, a folder of them or a pipe to traces: table, picture, overlay and page.",
        {
            "workdir!": "run folder of any stage, or name of a released run; the mean of several of one kind: DIR,DIR",
            "input!": "video or sound file, folder, or - for a container from a pipe",
            "output!": "folder for trace.csv, trace.json, trace.png, overlay.mp4 and viewer.html",
            "face": "largest (default), all, or a face's number as all gives it",
            "fps": {"type": float, "help": "frames a second to analyse at most (default: as the run was trained)"},
            "files": "which to write: csv,json,png,overlay,viewer (default: all)",
            "detector": "face detector (default: that of the training videos)",
            "detector_model": "the detector's weights, where it needs any",
            "detect_every": {"type": int, "help": "frames between detections"},
            "causal": {"action": "store_true", "help": "with --input=-: wait for no sound after a frame"},
            **_ENCODERS,
            **_HOST,
        },
        _predict,
    ),
    "compare": Command(
        "Compare runs on the same recordings: scores and paired differences from the first, with intervals.",
        {
            "runs*": {"metavar": "RUN", "help": "run folders, the reference first"},
            "output": "folder for compare.md, compare.csv and compare.json",
            "split": "one split (default: test, else dev)",
        },
        _compare,
    ),
    "export": Command(
        "Write a run as frozen programs (StableHLO for CPU, CUDA and TPU) that need jax alone.",
        {"workdir!": "run folder of any stage", "output!": "folder for the programs", **_ENCODERS},
        _export,
    ),
    "release": Command(
        "Pack finished runs into one archive with a model card; or install one, for commands to take its runs by name.",
        {
            "workdir": "run folders: DIR[,DIR…]; a fusion run brings its encoders",
            "output": "the archive, FILE.zip",
            "install": "archive, or its http(s) address, to put into $AVEMO_CACHE (default: ~/.cache/avemo)",
        },
        _release,
    ),
    "sweep": Command(
        "Compare settings and seeds of an experiment: tables, figures, statistics. --config.NAME=value holds for all.",
        {
            "config!": "sweep, FILE.py[:variant], such as configs/ablations/fusion.py",
            "workdir!": "folder for the cells and tables; the same for every shard",
            "shard": "i/n: train every n-th setting from the i-th; the tables hold whatever is finished",
        },
        _sweep,
    ),
    "demo": Command(
        "Run every stage end to end, and write report.html.",
        {
            "workdir!": "folder for everything the demo makes",
            "corpus": {"choices": ("synthetic", "real"), "default": "synthetic", "help": "default: synthetic"},
            "source": "folder of the real corpora (with --corpus=real)",
            "seed": {"type": int, "default": 0, "help": "of the corpus and of every stage (default 0)"},
        },
        _demo,
    ),
}
