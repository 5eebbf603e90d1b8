"""The command line: parses and dispatches. `python launch.py COMMAND --help` explains each command."""

import argparse
import json
import os
import sys

from avemo.cli.commands import COMMANDS, Command
from media.standard_output import ends_quietly


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py", description="Audio-visual emotion recognition in JAX/Flax.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_to(commands.add_parser(name, help=command.text, description=command.text))
    return parser


@ends_quietly
def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
      The exit status: 0, 1 if cells of a sweep failed, 2 for a user error, 130 when interrupted, 141 for a broken pipe,
      143 when terminated.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if (args.command not in ("train", "sweep", "compile") and rest) or any(not r.startswith("--config.") for r in rest):
        parser.error(f"unknown argument: {' '.join(rest)}")
    from media import caches, termination

    caches.make_writable()
    command = COMMANDS[args.command]
    return termination.ends_when_stopped(command.stopped)(_run)(command, args, rest)


def _run(command: Command, args: argparse.Namespace, overrides: list[str]) -> int:
    from media.errors import Preempted, UserError, not_installed

    try:
        if command.uses_jax:
            from avemo.cli import process

            process.start(vars(args).pop("host_devices", None), command.accelerator)
        result = command.run(args, overrides)
    except ModuleNotFoundError as error:
        print(f"error: {not_installed(error)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Preempted as stopped:
        print(f"preempted: {stopped}", file=sys.stderr)
        return 0
    print(result if isinstance(result, str) else json.dumps(result, indent=2, default=float))
    return 1 if isinstance(result, dict) and result.get("failed") else 0


def run_and_exit() -> None:
    """Runs the command of `sys.argv` and ends the process with its status."""
    status = main()
    if status:  # threads of the command may still be at work: an ordinary exit would wait for them, and print their end
        sys.stderr.flush()
        if "avemo.runs.shipped" in sys.modules:
            sys.modules["avemo.runs.shipped"].remove()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run_and_exit()
