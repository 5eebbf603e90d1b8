"""The commands of `launch.py`: their flags and the functions they call. Each command imports what it needs, so that
`--help` is quick."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      text: its help.
      flags: for each flag its help, or keyword arguments of `add_argument`. The name of a required flag ends in `!`,
        that of positional arguments in `*`.
      run: `(args, overrides) -> result`; the result is text or converts to JSON.
      uses_jax: whether JAX has to work before the command begins.
      accelerator: whether it takes the machine's accelerators.
      stopped: what is said when Ctrl-C or SIGTERM has stopped it.
    """

    text: str
    flags: Mapping[str, str | dict[str, Any]]
    run: Callable[[argparse.Namespace, list[str]], Any]
    uses_jax: bool = True
    accelerator: bool = True
    stopped: str = "nothing unfinished is left; the same command begins anew."

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
    from avemo.training import train

    return train.train_and_evaluate(configuration.load(args.config, overrides), args.workdir)["metrics"]


def _compile(args: argparse.Namespace, overrides: list[str]) -> Any:
    import sys

    from avemo import configuration
    from avemo.aot import compiler, printout

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    config = configuration.load(args.config, overrides)
    report = compiler.run(config, args.topology, args.platform, args.search, progress, args.top, args.hbm_only)
    return report if args.json else printout.text(report)


def _evaluate(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.evaluation import evaluate

    return evaluate.evaluate(args.workdir, args.data, args.split, args.flip, args.output, args.adapt)


def _extract(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.evaluation import extract
    from avemo.runs import installed

    return str(extract.extract(installed.separate(args.workdir), args.data, args.output, layer=args.layer))


def _predict(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo import predict
    from avemo.runs import shipped

    options = {"workdir": shipped.RUN} | {
        k: v for k, v in vars(args).items() if v is not None and k not in ("command", "files")
    }
    return predict.predict(**options, files=args.files.split(",") if args.files else predict.FILES)


def _compare(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.evaluation import compare

    return compare.run(args.runs, args.output, args.split)


def _export(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.release import export

    return export.export(args.workdir, args.output, args.visual, args.audio, args.format)


def _release(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.release import install, pack
    from media.errors import UserError

    options = pack.Options(args.half, args.calibrate)
    if args.install and not (args.workdir or args.output or args.half or args.calibrate):
        return install.install(args.install)
    if args.install or not (args.workdir and args.output):
        raise UserError(
            "release takes --workdir=RUN[,RUN…] --output=FILE.zip to make an archive, or --install=FILE.zip alone."
        )
    return pack.pack(args.workdir, args.output, options)


def _pack(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.release import travel

    return travel.pack(args.workdir, args.output)


def _sweep(args: argparse.Namespace, overrides: list[str]) -> Any:
    from avemo.sweep import runner

    return runner.run(args.config, args.workdir, overrides, args.shard)


def _demo(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo.cli import demo

    return demo.run(args.workdir, args.corpus, args.source, args.seed, args.smoke)


def _doctor(args: argparse.Namespace, _: list[str]) -> Any:
    from avemo import doctor

    raise SystemExit(doctor.main())


_ENCODERS = {
    "visual": "run folder of a teacher or student, to replace the recorded one",
    "audio": "run folder of an audio encoder, to replace the recorded one",
}

_HOST = {
    "host_devices": {
        "type": int,
        "metavar": "N",
        "help": "without an accelerator, split each batch over N devices made from this host's cores (default: 1)",
    }
}

COMMANDS = {
    "train": Command(
        "Train one stage, or resume it where it stopped. --config.path.to.field=value overrides a field.",
        {"config!": "config file, FILE.py[:variant]", "workdir!": "run folder, local or gs://", **_HOST},
        _train,
        stopped="the same command resumes the run at its last checkpoint, if there is one.",
    ),
    "compile": Command(
        "Compile a training step for a TPU slice, on any host and without data: does it fit, what limits its speed?",
        {
            "config!": "config file, FILE.py[:variant]",
            "topology!": "TPU (v4, v5e, v5p, v6e) and shape, such as v5e:2x4; with --platform=cuda the number of GPUs",
            "platform": {
                "choices": ("tpu", "cuda"),
                "default": "tpu",
                "help": "cuda is only lowered, not compiled (default: tpu)",
            },
            "search": {"action": "store_true", "help": "find the largest batch per chip"},
            "top": {
                "type": int,
                "default": 0,
                "metavar": "N",
                "help": "list the N instructions that move the most bytes",
            },
            "hbm_only": {"action": "store_true", "help": "do not use a TPU's fast memory, to see all traffic"},
            "json": {"action": "store_true", "help": "print the figures as JSON with sizes in bytes"},
        },
        _compile,
        accelerator=False,
    ),
    "evaluate": Command(
        "Score a run's best checkpoint on its own data or on other shards, such as another corpus or other classes.",
        {
            "workdir!": "run folder",
            "data": "prepared shards (default: the run's own)",
            "split": "one split (default: all except train)",
            "flip": {"action": "store_true", "help": "for faces: average each picture with its mirror image"},
            "adapt": {
                "default": "",
                "metavar": "KIND[,KIND]",
                "help": "for faces, without their labels: statistics (BatchNorm's, from these faces), person (subtract "
                "each person's average)",
            },
            "output": "folder for the predictions SPLIT.npz (default: the run's predictions/, only for its own data)",
            **_HOST,
        },
        _evaluate,
        stopped="the same command begins anew.",
    ),
    "extract": Command(
        "Write the per-frame features of frozen encoders as shards.",
        {
            "workdir!": "run folder of a visual or audio encoder, or DIR,DIR for both",
            "data!": "prepared clips",
            "output!": "folder for the features",
            "layer": {
                "choices": ("embedding", "logits"),
                "default": "embedding",
                "help": "what to store: the embedding, or the logits of the encoders' classes (default: embedding)",
            },
            **_HOST,
        },
        _extract,
    ),
    "predict": Command(
        "Turn a video, a sound file, a folder of them or a pipe into traces: table, picture, overlay and page.",
        {
            "workdir": "run folder of any stage, or name of a released run; DIR,DIR averages several of one kind "
            "(default: the release that avemo carries)",
            "input!": "video or sound file, folder, or - for a container on standard input",
            "output!": "folder for trace.csv, trace.json, trace.png, overlay.mp4 and viewer.html",
            "face": "largest (default), all, or the number of a face in the output of all",
            "fps": {"type": float, "help": "analyse at most this many frames per second (default: as in training)"},
            "files": "files to write: csv,json,png,overlay,viewer (default: all)",
            "detector": "face detector (default: as in training)",
            "detector_model": "weights file of the detector, if it needs one",
            "detect_every": {"type": int, "help": "frames between detections"},
            "audio_track": {"type": int, "metavar": "N", "help": "sound track, from 0 (default: the file's default)"},
            "max_megapixels": {"type": float, "metavar": "N", "help": "refuse larger pictures (default: 50)"},
            "causal": {
                "action": "store_true",
                "help": "with --input=-: end sound windows at their frame, so that no frame waits for sound",
            },
            **_ENCODERS,
            **_HOST,
        },
        _predict,
        stopped="recordings that were finished are kept, nothing else is left; the same command begins anew.",
    ),
    "compare": Command(
        "Compare runs on the same recordings: scores and paired differences from the first run, with intervals.",
        {
            "runs*": {"metavar": "RUN", "help": "run folders, the reference first"},
            "output": "folder for compare.md, compare.csv and compare.json",
            "split": "one split (default: test, or dev if there is no test)",
        },
        _compare,
        accelerator=False,
    ),
    "export": Command(
        "Write a run as frozen programs: StableHLO for CPU, CUDA and TPU, which needs only jax; or ONNX.",
        {
            "workdir!": "run folder of any stage, or name of a released run",
            "output!": "folder for the programs",
            "format": {
                "choices": ("stablehlo", "onnx"),
                "default": "stablehlo",
                "help": "onnx needs only onnxruntime to run, and jax2onnx to be written",
            },
            **_ENCODERS,
        },
        _export,
    ),
    "release": Command(
        "Pack finished runs into an archive with a model card; or install one, so that commands find its runs by name.",
        {
            "workdir": "run folders DIR[,DIR…]; a fusion run includes its encoders",
            "output": "the archive, FILE.zip",
            "half": {"action": "store_true", "help": "store parameters as float16: half the size"},
            "calibrate": {
                "action": "store_true",
                "help": "fold a temperature and a prior, fitted on dev predictions, into each encoder's head",
            },
            "install": "archive or its http(s) address, to install in $AVEMO_CACHE (default: ~/.cache/avemo)",
        },
        _release,
        accelerator=False,
    ),
    "pack": Command(
        "Pack one run into one file for a drive or another machine: log, scores, predictions and weights, no data.",
        {"workdir!": "run folder of any stage", "output!": "the file, RUN.zip; avemo.load opens it anywhere"},
        _pack,
        accelerator=False,
    ),
    "sweep": Command(
        "Compare settings and seeds of an experiment: tables, figures, statistics. --config.NAME=value applies to all.",
        {
            "config!": "sweep file, FILE.py[:variant], such as configs/ablations/fusion.py",
            "workdir!": "folder for cells and tables, the same for every shard",
            "shard": "i/n: train every n-th setting, starting with the i-th; the tables show all finished settings",
        },
        _sweep,
        stopped="the same command trains the settings that are not finished.",
    ),
    "demo": Command(
        "Run every stage end to end and write report.html.",
        {
            "workdir!": "folder for everything that the demo makes",
            "corpus": {"choices": ("synthetic", "real"), "default": "synthetic", "help": "default: synthetic"},
            "source": "folder of the real corpora, needed with --corpus=real",
            "seed": {"type": int, "default": 0, "help": "seed of the corpus and of every stage (default: 0)"},
            "smoke": {"action": "store_true", "help": "one step of every stage on four short recordings: does it run?"},
        },
        _demo,
        stopped="the same command goes on with the stage that was stopped.",
    ),
    "doctor": Command(
        "Print versions, devices, decoders and writable places on one page for a bug report; 1 if something is broken.",
        {},
        _doctor,
        uses_jax=False,
    ),
}
