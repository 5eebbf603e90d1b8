"""The command line: parses, dispatches, nothing else. `python launch.py COMMAND --help` explains each command."""

import argparse
import json
import sys


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py", description="Audio-visual emotion recognition in JAX/Flax.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    p = command("train", "Train one stage; resumes where it stopped. Override fields by --config.path.to.field=value.")
    p.add_argument("--config", required=True, help="config file, FILE.py[:variant]")
    p.add_argument("--workdir", required=True, help="run folder, local or gs://")
    p = command("evaluate", "Score a run's best checkpoint on its own data, or on other shards of the same kind.")
    p.add_argument("--workdir", required=True, help="run folder")
    p.add_argument("--data", help="prepared shards (default: those of the run)")
    p.add_argument("--split", help="one split (default: all but train)")
    p = command("extract", "Write per-frame features of frozen encoders as shards.")
    p.add_argument("--workdir", required=True, help="run folder of a visual or audio encoder; both: DIR,DIR")
    p.add_argument("--data", required=True, help="prepared clips")
    p.add_argument("--output", required=True, help="folder for the features")
    p = command("demo", "Run every stage end to end, and write report.html.")
    p.add_argument("--workdir", required=True, help="folder for everything the demo makes")
    p.add_argument("--corpus", choices=("synthetic", "real"), default="synthetic")
    p.add_argument("--source", help="folder of the real corpora (with --corpus=real)")
    p.add_argument("--seed", type=int, default=0)
    return parser


def _dispatch(args: argparse.Namespace, overrides: list[str]) -> object:
    if args.command == "train":
        from avemo import configuration, train

        return train.train_and_evaluate(configuration.load(args.config, overrides), args.workdir)["metrics"]
    if args.command == "evaluate":
        from avemo import evaluate

        return evaluate.evaluate(args.workdir, args.data, args.split)
    if args.command == "extract":
        from avemo import extract

        return str(extract.extract(args.workdir.split(","), args.data, args.output))
    from avemo import demo

    return demo.run(args.workdir, args.corpus, args.source, args.seed)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns 0, 2 for an error of the user's, 130 when interrupted."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if (args.command != "train" and rest) or any(not r.startswith("--config.") for r in rest):
        parser.error(f"unknown argument: {' '.join(rest)}")
    from avemo import runtime
    from avemo.errors import UserError

    runtime.start()
    try:
        print(json.dumps(_dispatch(args, rest), indent=2, default=float))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except runtime.Preempted as stopped:
        print(f"preempted: {stopped}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the run.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
