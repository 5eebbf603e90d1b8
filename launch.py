"""The command line: parses and dispatches. `python launch.py COMMAND --help` explains each command."""

import argparse
import json
import os
import signal
import sys

from avemo.cli.commands import COMMANDS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py", description="Audio-visual emotion recognition in JAX/Flax.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_to(commands.add_parser(name, help=command.text, description=command.text))
    return parser


def _run(argv: list[str] | None) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if (args.command not in ("train", "sweep", "compile") and rest) or any(not r.startswith("--config.") for r in rest):
        parser.error(f"unknown argument: {' '.join(rest)}")
    from avemo.cli import process
    from media.errors import Preempted, UserError

    try:
        command = COMMANDS[args.command]
        if command.uses_jax:
            process.start(vars(args).pop("host_devices", None))
        result = command.run(args, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Preempted as stopped:
        print(f"preempted: {stopped}", file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the run.", file=sys.stderr)
        return 130
    print(result if isinstance(result, str) else json.dumps(result, indent=2, default=float))
    return 1 if isinstance(result, dict) and result.get("failed") else 0


def _output_is_closed() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def main(argv: list[str] | None = None) -> int:
    """Runs a command and ends quietly if the reader of standard output has left, as in `launch.py … | head`.

    A broken pipe of any other kind, such as a lost connection to a bucket, is raised.

    Returns:
      The exit status: 0, 1 if cells of a sweep failed, 2 for a user error, 130 when interrupted, 141 for a broken pipe.
    """
    try:
        try:
            status = _run(argv)
        except SystemExit:  # argparse: --help, or a usage error
            print(end="", flush=True)
            raise
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
