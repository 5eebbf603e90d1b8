"""Presets: the options of `features` for a layout that many have, each in a TOML file."""

import pathlib
import tomllib
from typing import Any

from media.errors import UserError, unknown

FOLDER = pathlib.Path(__file__).parent / "presets"
DESCRIPTION = ("title", "tree")  # for people; every other key is an option


def names() -> list[str]:
    """Names of the presets that come with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> dict[str, Any]:
    """Reads a preset by its name, or a file of one's own by its path.

    Raises:
      UserError: there is none, or it is no TOML.
    """
    path = pathlib.Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise UserError(f"--preset={name} is not a file.")
        raise unknown("preset", name, names())
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--preset={path} cannot be read: {error}.") from error
    return {key: ",".join(value) if isinstance(value, list) else value for key, value in values.items()}


def options(name: str) -> dict[str, Any]:
    """The options that a preset sets."""
    return {key: value for key, value in read(name).items() if key not in DESCRIPTION}
