"""Opens a data set's description, `features.json` and `dataset_info.json`, with the TFDS library."""

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from media.errors import UserError
from media.files import storage_errors

_OURS = "tensorflow_datasets.core.features."
_CLASS_KEYS = ("type", "pythonClassName", "python_class_name")


def open_dataset(folder: epath.Path) -> Any:
    """Opens a TFDS data set; returns its builder.

    The schema names classes, and TFDS imports the modules that hold them. So names of other modules than its own are
    refused: the data set may come from anybody.

    Raises:
      UserError: a JSON file cannot be read, is damaged, or names another class.
    """
    import tensorflow_datasets as tfds
    from google.protobuf import json_format

    texts = []
    for path in (folder / "features.json", folder / "dataset_info.json"):
        if not path.exists():
            raise UserError(f"{path} is missing: prepare the data set again.")
        with storage_errors(path):
            texts.append(path.read_bytes())
    try:
        values = [json.loads(text) for text in texts]
        if not all(isinstance(value, dict) for value in values):
            raise ValueError("a JSON object was expected")
        for name in _classes(values[0]):
            if not name.startswith(_OURS):
                raise UserError(
                    f"{folder / 'features.json'} names the class {name!r}, which is not one of TFDS: do not trust this "
                    "data set."
                )
        return tfds.builder_from_directory(str(folder))
    except (ValueError, RecursionError, json_format.ParseError) as error:
        reason = " ".join(str(error).split())  # protobuf's are several lines
        raise UserError(f"{folder} cannot be opened as a data set ({reason}): prepare it again.") from error


def _classes(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _classes(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key in _CLASS_KEYS and isinstance(one, str) and "." in one:
                yield one
            elif key == "json" and isinstance(one, str):  # JSON within JSON
                yield from _classes(json.loads(one))
            else:
                yield from _classes(one)
