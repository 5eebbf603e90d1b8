"""The command line: parses, dispatches, nothing else. `python launch.py COMMAND --help` explains each command."""

import argparse
import json
import os
import sys

from avemo.cli.commands import COMMANDS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py", description="Audio-visual emotion recognition in JAX/Flax.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_to(commands.add_parser(name, help=command.text, description=command.text))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0; 1 if cells of a sweep failed; 2 for a user error; 130 when interrupted; 141 when nobody reads the output.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if (args.command not in ("train", "sweep", "compile") and rest) or any(not r.startswith("--config.") for r in rest):
        parser.error(f"unknown argument: {' '.join(rest)}")
    from avemo import runtime
    from media.errors import UserError

    try:
        runtime.start(vars(args).pop("host_devices", None))
        result = COMMANDS[args.command].run(args, rest)
        print(result if isinstance(result, str) else json.dumps(result, indent=2, default=float), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except runtime.Preempted as stopped:
        print(f"preempted: {stopped}", file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the run.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `launch.py … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python complains when it flushes at exit
        return 141
    return 1 if isinstance(result, dict) and result.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
