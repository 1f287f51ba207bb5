"""The edit alone, as one small file: made on one machine, applied to the same base on another.

The file is safetensors: the new values under their tensors' names, and in its metadata, as JSON,
what they are for: the recipe, the dims, and the hash of every weight file of the base. A hash of
that and of the values shows damage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.edit.files import FileState, hash_file
from surgeon.edit.plan import Plan, edits_meant
from surgeon.edit.recipe import recipe_from_json
from surgeon.edit.staging import check_output, replace_file
from surgeon.errors import CheckpointError, OutputError, SelectionError
from surgeon.model import Checkpoint
from surgeon.model.tensors import SafetensorsFile, open_safetensors
from surgeon.progress import Progress, silent
from surgeon.settings import reader
from surgeon.text import TextsUsed

_SCHEMA = "2"
_KEY = "surgeon"
_HASH = "blake3"
_WRITTEN = ("tensor", "param", "role", "kind", "layer", "axis", "offset", "stack")
_CHECKED = ("tensor", "param", "axis", "offset")


@dataclass(frozen=True)
class _Contents:
    """What the metadata of the file says."""

    schema: str
    model: str
    recipe: dict[str, Any]
    dims: tuple[int, ...]
    base: dict[str, FileState]
    edits: tuple[Mapping[str, str | float | None], ...]
    ranked_on: TextsUsed | None = None
    sites_pattern: str | None = None


def write_small_patch(
    plan: Plan, path: str | Path, *, force: bool = False, progress: Progress = silent
) -> int:
    """Write a plan's edit, and the hashes of the base it is for; return the file's size in bytes.

    Raises:
        OutputError: the file exists and ``force`` is off, or lies in the source.
        CheckpointError: the base is a pickle, whose bytes are no fixed ground.
    """
    path = Path(path)
    from safetensors.numpy import save

    _check_output(plan.checkpoint, path, force=force)
    contents = _Contents(
        schema=_SCHEMA,
        model=plan.checkpoint.name,
        recipe=plan.recipe.to_json(),
        dims=plan.dims,
        base=_states(plan.checkpoint, progress),
        edits=tuple({name: getattr(edit, name) for name in _WRITTEN} for edit in plan.edits),
        ranked_on=plan.ranked_on,
        sites_pattern=plan.checkpoint.sites_pattern,
    )
    values = {edit.tensor: np.ascontiguousarray(edit.new) for edit in plan.edits}
    metadata = json.dumps(asdict(contents))
    content = save(values, metadata={_KEY: metadata, _HASH: _hash(metadata, values.values())})
    target = path.resolve()  # of a link, what it leads to: that is what was checked
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, content, _is_small_patch if force else None)
    return len(content)


def plan_from_small_patch(
    path: str | Path, checkpoint: Checkpoint, *, progress: Progress = silent
) -> Plan:
    """Resolve a small patch on a base; ``write_artifact`` then performs it.

    Raises:
        CheckpointError: the file is damaged, or the base is another one.
        SelectionError: its recipe has a setting that this version does not know.
    """
    path = Path(path)
    file, contents = _open(path)
    states = _states(checkpoint, progress)
    for name in sorted(states.keys() | contents.base.keys()):
        if (state := contents.base.get(name)) != states.get(name):
            there = "another file" if name in states else "not there"
            has = f"whose {name} has the BLAKE3 hash {state.blake3[:16]}…" if state else None
            raise CheckpointError(
                f"{checkpoint.directory}: is not the base of {path.name}: its {name} is {there}; "
                f"it takes {contents.model}, {has or f'which has no {name}'}"
            )
    checkpoint = replace(checkpoint, sites_pattern=contents.sites_pattern)
    recipe = recipe_from_json(contents.recipe, str(path))
    try:
        edits = edits_meant(checkpoint, recipe, contents.dims)
    except SelectionError as error:
        raise CheckpointError(f"{path}: its recipe does not fit the base ({error})") from error
    meant = [tuple(getattr(edit, name) for name in _CHECKED) for edit in edits]
    written = [tuple(edit.get(name) for name in _CHECKED) for edit in contents.edits]
    values = {name: _bits(file.read(name)) for name in file.tensors}
    if written != meant or values != {edit.tensor: _bits(edit.new) for edit in edits}:
        raise CheckpointError(
            f"{path}: its edits are not what its recipe means on this base; make the file anew "
            "with surgeon patch --record-only"
        )
    return Plan(checkpoint, recipe, contents.dims, edits, ranked_on=contents.ranked_on)


def _bits(values: npt.NDArray[Any]) -> tuple[object, ...]:
    return values.dtype, values.shape, values.tobytes()


def _check_output(checkpoint: Checkpoint, path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"`output` {path}: is a directory; name the file to write the edit to")
    check_output(path, checkpoint.source, force=force)
    # The source's folder may hold links to weights that lie elsewhere.
    if path.exists() and any(map(path.samefile, (file.path for file in checkpoint.files))):
        raise OutputError(f"`output` {path}: holds the source's weights; name another file")


def _is_small_patch(path: Path) -> bool:
    try:
        _open(path)
    except (CheckpointError, OSError):
        return False
    return True


def _hash(metadata: str, values: Iterable[npt.NDArray[Any]]) -> str:
    from blake3 import blake3

    hasher = blake3(metadata.encode())
    for value in values:
        hasher.update(value.tobytes())
    return hasher.hexdigest()


def _states(checkpoint: Checkpoint, progress: Progress) -> dict[str, FileState]:
    states = {}
    for number, file in enumerate(checkpoint.files):
        if not isinstance(file, SafetensorsFile):
            raise CheckpointError(
                f"{file.path}: a small patch needs safetensors as its base; make the whole "
                "artifact instead"
            )
        progress(f"hashing {file.path.name}", number, len(checkpoint.files))
        states[file.path.name] = hash_file(file.path)
    return states


def _open(path: Path) -> tuple[SafetensorsFile, _Contents]:
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; make one with surgeon patch --record-only")
    try:
        file = open_safetensors(path)
        contents = reader(_Contents).validate_json(file.metadata[_KEY])
    except (CheckpointError, IsADirectoryError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: no small patch of surgeon's, or a damaged one; give the file that surgeon "
            "patch --record-only made"
        ) from error
    if contents.schema != _SCHEMA:
        raise CheckpointError(
            f"{path}: its schema is {contents.schema!r} and this surgeon reads {_SCHEMA}; make the "
            "file anew with surgeon patch --record-only"
        )
    names = dict.fromkeys(str(edit.get("tensor")) for edit in contents.edits)
    values = (file.read(name) for name in names if name in file.tensors)
    if file.metadata.get(_HASH) != _hash(file.metadata[_KEY], values):
        raise CheckpointError(f"{path}: damaged: its values are not those it was made with")
    return file, contents
