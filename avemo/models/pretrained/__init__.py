"""Published weights, converted once: `python -m avemo.models.pretrained NAME --file=PATH --output=DIR`.

The output folder holds `weights/`, an Orbax checkpoint {"params", "batch_stats"}, and `provenance.json` (name, source
file, its SHA-256, licence note, converter). A config names the folder as `model.init_from`. The folder is created
complete or not at all.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from avemo.models.pretrained import networks, statistics
from avemo.version import __version__
from media.errors import UserError, unknown
from media.files import own_folder, write_errors

PROVENANCE = "provenance.json"
WEIGHTS = "weights"
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Converted weights as nested dicts of NumPy arrays, and their provenance."""

    params: Tree
    batch_stats: Tree
    provenance: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Data that BatchNorm's statistics are taken from.

    Attributes:
      batches: returns batches of inputs, given the shape of one input of the network.
      fingerprint: of the data.
      image_size: side, in px, at which the network sees faces.
    """

    batches: Callable[[tuple[int, ...]], Iterable[np.ndarray]]
    fingerprint: str
    image_size: int


def convert(name: str, file: str | Path, output: str | Path, sample: Sample | None = None) -> dict[str, Any]:
    """Converts published weights to our layout.

    Args:
      name: one of `networks.SOURCES`.
      file: the published file.
      output: folder to create; it must be empty if it exists.
      sample: data whose statistics BatchNorm gets (`statistics.renormalised`); None keeps those of the file.

    Returns:
      The provenance.

    Raises:
      UserError: the name is unknown; the file is missing, wrong or truncated; a tensor is missing, unexpected or of
        the wrong shape; the output folder is in use. Nothing is left behind.
    """
    if name not in networks.SOURCES:
        raise unknown("pretrained network", name, networks.SOURCES)
    file, output = Path(file), Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already: name a new folder with --output")
    source = networks.SOURCES[name]
    try:
        tree = _arrange(source, source.read(file), file)
        digest = _sha256(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
    if sample is not None:
        tree = statistics.renormalised(source.network(), tree, sample.batches(source.inputs))
        digest = hashlib.sha256(f"{digest} {sample.fingerprint} {sample.image_size}".encode()).hexdigest()
    provenance = {
        "network": name,
        "source_file": file.name,
        "sha256": digest,
        "licence": source.licence,
        "parameters": networks.size(source.shapes),
        "converter": f"avemo {__version__}",
        **({"statistics": sample.fingerprint} if sample is not None else {}),
    }
    try:
        with write_errors(output.parent, needed=sum(leaf.nbytes for leaf in jax.tree.leaves(tree))):
            _write(tree, provenance, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from None
    return provenance


def _write(tree: Tree, provenance: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(output.parent, f".{output.name}-") as staging:
        with ocp.PyTreeCheckpointer() as writer:
            writer.save(staging / WEIGHTS, tree)
        (staging / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        staging.chmod(0o755)
        os.replace(staging, output)


def load_pretrained(folder: str | Path) -> Pretrained:
    """Returns the weights of a folder that `convert` made, on the host.

    Raises:
      UserError: the folder was not made by `convert`.
    """
    folder = Path(folder).absolute()
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        raise UserError(
            f"{folder}: no converted weights (no readable {PROVENANCE}): make them with "
            "`python -m avemo.models.pretrained NAME --file=PATH --output=DIR`"
        ) from None
    try:
        with ocp.PyTreeCheckpointer() as reader:
            metadata = reader.metadata(folder / WEIGHTS).item_metadata.tree
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
            tree = reader.restore(folder / WEIGHTS, restore_args=arguments)
        return Pretrained(tree["params"], tree.get("batch_stats") or {}, provenance)
    except Exception as error:  # Orbax has no type of error for damage
        raise UserError(f"{folder / WEIGHTS} cannot be read ({type(error).__name__}): convert them again.") from error


def merge_into(params: Tree, batch_stats: Tree, pretrained: Pretrained, prefix: str = "") -> tuple[Tree, Tree]:
    """Returns `params` and `batch_stats` with everything under `prefix` replaced by pretrained values.

    Pretrained tensors that the network does not have (FaceNet's last blocks) are left out.

    Args:
      params: the network's parameters, nested dicts.
      batch_stats: its running statistics; may be empty.
      pretrained: what `load_pretrained` returned.
      prefix: where the pretrained network sits, e.g. "trunk" or "a/b"; "" for the whole.

    Raises:
      UserError: a tensor of the network is missing from the pretrained weights or has another shape there.
    """
    name = pretrained.provenance["network"]

    def replace(ours: Mapping[str, Any], theirs: Any, path: tuple[str, ...]) -> Tree:
        merged: Tree = {}
        for key, value in ours.items():
            here = (*path, key)
            there = theirs.get(key) if isinstance(theirs, Mapping) else None
            if isinstance(value, Mapping):
                merged[key] = replace(value, there, here)
            elif there is None:
                raise UserError(f"init_from: weights of {name} have no tensor {'/'.join(here)}; is it another network?")
            elif np.shape(value) != np.shape(there):
                raise UserError(
                    f"init_from: tensor {'/'.join(here)} is {np.shape(there)} in the weights of {name}, but "
                    f"{np.shape(value)} in the model; keep the published numbers (width 1, …)"
                )
            else:
                merged[key] = np.asarray(there, dtype=value.dtype)
        return merged

    def at_prefix(ours: Tree, theirs: Tree, modules: list[str]) -> Tree:
        if not modules:
            return replace(ours, theirs, ())
        if modules[0] not in ours:
            raise UserError(f"init_from: the model has no module {prefix!r}; it has {', '.join(sorted(ours))}")
        return {**ours, modules[0]: at_prefix(ours[modules[0]], theirs, modules[1:])}

    modules = prefix.split("/") if prefix else []
    params = at_prefix(params, pretrained.params, modules)
    if pretrained.batch_stats and batch_stats:
        batch_stats = at_prefix(batch_stats, pretrained.batch_stats, modules)
    return params, batch_stats


def initialise(variables: Mapping[str, Tree], weights: Pretrained) -> dict[str, Tree]:
    """Returns the variables of a freshly initialised model, replaced by published weights as far as these go.

    Args:
      variables: {"params", "batch_stats" …} of an expression network (its `trunk` is replaced), of an audio network
        (its `encoder`), or of the pretrained network itself.
      weights: what `load_pretrained` returned.

    Raises:
      UserError: the weights do not fit.
    """
    prefix = next((module for module in ("trunk", "encoder") if module in variables["params"]), "")
    return _merged(variables, weights, prefix)


def initialise_from_run(variables: Mapping[str, Tree], trained: Mapping[str, Tree], run: str) -> dict[str, Tree]:
    """Returns the variables of a freshly initialised model, replaced by those of a run of the same model.

    Heads of another size (other classes) stay as initialised.

    Args:
      variables: {"params", "batch_stats" …} of the model.
      trained: the run's variables.
      run: name of the run in messages.

    Raises:
      UserError: the weights do not fit.
    """
    params = _keep_resized_heads(variables["params"], trained["params"])
    weights = Pretrained(params, trained.get("batch_stats", {}), {"network": run})
    return _merged(variables, weights, "")


def _merged(variables: Mapping[str, Tree], weights: Pretrained, prefix: str) -> dict[str, Tree]:
    params, batch_stats = dict(variables["params"]), dict(variables.get("batch_stats", {}))
    params, batch_stats = merge_into(params, batch_stats, weights, prefix)
    return {**variables, "params": params, **({"batch_stats": batch_stats} if batch_stats else {})}


def _keep_resized_heads(params: Tree, stored: Tree) -> Tree:
    stored = dict(stored)
    for name, value in params.items():
        if "head" in name and name in stored and jax.tree.map(np.shape, value) != jax.tree.map(np.shape, stored[name]):
            logging.warning("init_from: %s has another size in the run and is initialised afresh.", name)
            stored[name] = value
    return stored


def _arrange(source: networks.PublishedWeights, tensors: networks.Tensors, file: Path) -> Tree:
    """Returns nested variables made from `tensors`, each checked against our network's names and shapes."""
    placed: dict[networks.Path, np.ndarray] = {}
    origin: dict[networks.Path, str] = {}
    for tensor, value in tensors.items():
        try:
            target = source.place(tensor, value)
        except KeyError:
            raise UserError(f"{file}: unexpected tensor {tensor}: not the weights of this network") from None
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        if target is None:
            continue
        path, value = target
        if path not in source.shapes:
            raise UserError(f"{file}: unexpected tensor {tensor}: not the weights of this network")
        if value.shape != source.shapes[path]:
            raise UserError(
                f"{file}: tensor {tensor} has shape {value.shape}, expected {source.shapes[path]} for {'/'.join(path)}"
            )
        if not np.isfinite(value).all():
            raise UserError(f"{file}: tensor {tensor} has values that are not finite; download it again")
        placed[path], origin[path] = value, tensor
    tree: Tree = {}
    for path, shape in source.shapes.items():
        leaf = placed.get(path, source.fill(path, shape))
        if leaf is None:
            raise UserError(f"{file}: no tensor for {'/'.join(path)}: not the weights of this network, or incomplete")
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = np.ascontiguousarray(leaf, dtype=np.float32)
    return tree


def _sha256(file: Path) -> str:
    """Returns the hash of a file, or of a TF.js graph or TF bundle together with its data files in order."""
    digest = hashlib.sha256()
    companions = sorted(file.parent.glob(f"{file.stem}*.bin")) if file.suffix == ".json" else []
    if file.suffix == ".index" or not file.is_file():
        companions = sorted(file.parent.glob(f"{file.name.removesuffix('.index')}.data-*"))
        file = file if file.suffix == ".index" else file.with_name(file.name + ".index")
    for member in [file, *companions]:
        with open(member, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
