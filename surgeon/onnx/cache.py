"""The graphs that surgeon keeps: an export is the same for all weights of an architecture.

Each is a zip file, named by all that it depends on. What is damaged counts as not there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from surgeon.model import Checkpoint
from surgeon.onnx.facts import OnnxFacts, onnx_facts
from surgeon.torch_model.directory import tokenizer_files

_SUFFIX = ".graph.zip"
_MOST_BYTES = 2**29
_STALE = 3600.0  # seconds after which a half-written file is nobody's
_LIBRARIES = ("torch", "transformers", "tokenizers", "onnx", "onnx-ir", "onnxscript")
_CODE = ("onnx", "torch_model")  # the packages of surgeon that decide what an export is
# What zipfile raises of a file with a changed byte, and what the content is taken for
_DAMAGED = (
    OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, ValueError, LookupError,
    TypeError,
)  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Graph:
    """An exported graph without weights.

    Attributes:
        model: the ONNX file, in which each weight is an external tensor under its checkpoint name.
        facts: what is known of it, but for ``vectors`` and ``not_applied``.
        ties: stored tensors of which the model makes one, so that they have to be equal.
        tokenizer: a ``tokenizer.json`` for the graph's folder; empty where the model has its own.
        name: of the model that it was exported of.
        general: whether it holds for other weights too: it has none of these in it.
    """

    model: bytes
    facts: OnnxFacts
    ties: tuple[tuple[str, ...], ...]
    tokenizer: bytes
    name: str = ""
    general: bool = True


@dataclass(frozen=True)
class KeptGraph:
    """A file of the cache: its key, its size in bytes and when it was last used (UTC)."""

    key: str
    bytes: int
    used: str
    model: str
    task: str


def graphs_folder() -> Path:
    """Return where graphs are kept: by ``SURGEON_CACHE``, else by ``XDG_CACHE_HOME``."""
    if own := os.environ.get("SURGEON_CACHE"):
        return Path(own).expanduser() / "graphs"
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return home.expanduser() / "surgeon" / "graphs"
    except RuntimeError:  # this user has no home, so nothing can be kept
        return Path(os.devnull) / "graphs"


def graph_key(checkpoint: Checkpoint, dtype: str) -> str:
    """Return the key of a checkpoint's graph: a hash of all that an export depends on.

    That is the configuration, the tensors' names, shapes and dtypes, the tokenizer, the dtype of
    the graph, the libraries' versions and surgeon's own code. No weight is read.
    """
    from blake3 import blake3

    tensors = [(i.name, i.dtype, i.shape) for i in checkpoint.tensors.values()]
    files = [(path.name, _hashed(path)) for path in tokenizer_files(checkpoint.directory)]
    package = Path(__file__).parent.parent
    code = [_hashed(path) for part in _CODE for path in sorted((package / part).glob("*.py"))]
    depends_on = (
        checkpoint.config,
        sorted(tensors),
        checkpoint.family.name,
        checkpoint.sites_pattern,
        sorted(files),
        dtype,
        [metadata.version(name) for name in _LIBRARIES],
        code,
    )
    return blake3(json.dumps(depends_on, sort_keys=True).encode()).hexdigest(length=16)


def _hashed(path: Path) -> str:
    from blake3 import blake3

    return blake3(path.read_bytes()).hexdigest()


def find_graph(key: str) -> Graph | None:
    """Return the graph that is kept under a key; None without one that can be read."""
    path = _path(key)
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read("graph.json"))
            ties = tuple(tuple(names) for names in about["ties"])
            facts, name = onnx_facts(about["facts"]), about["name"]
            graph = Graph(
                file.read("model.onnx"), facts, ties, file.read("tokenizer.json"), str(name)
            )
    except _DAMAGED as error:
        _log.warning("%s: damaged (%s), so the graph is exported anew", path, error)
        return None
    with contextlib.suppress(OSError):  # of a cache that others may only read
        os.utime(path)
    return graph


def keep_graph(key: str, graph: Graph) -> None:
    """Keep a graph under a key, and remove those that were used least recently if there is no room.

    A cache that cannot be written to is no reason to fail: the log says so.
    """
    path = _path(key)
    about = {"facts": graph.facts.to_json(), "ties": graph.ties, "name": graph.name}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as half, zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("graph.json", json.dumps(about))
            file.writestr("model.onnx", graph.model)
            file.writestr("tokenizer.json", graph.tokenizer)
        _make_room(path.parent)
    except OSError as error:
        _log.warning("%s: the graph was not kept (%s)", path, error)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """Yield an open file beside ``path`` that takes its place, whole, when the block ends well."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _make_room(folder: Path) -> None:
    now = dt.datetime.now(dt.UTC).timestamp()
    found = sorted(_files(folder, hidden=True), key=lambda entry: -entry[1].st_mtime)
    total = 0
    for path, there in found:
        total += there.st_size
        stale = path.name.startswith(".") and now - there.st_mtime > _STALE
        if stale or total > _MOST_BYTES:
            path.unlink(missing_ok=True)


def list_graphs() -> tuple[KeptGraph, ...]:
    """Return the graphs that are kept, those used last first."""
    found = []
    for path, there in sorted(_files(graphs_folder()), key=lambda entry: -entry[1].st_mtime):
        try:
            with zipfile.ZipFile(path) as file:
                about = json.loads(file.read("graph.json"))
            model, task = str(about["name"]), str(about["facts"]["task"])
        except _DAMAGED:
            model, task = "(damaged)", ""
        used = dt.datetime.fromtimestamp(there.st_mtime, dt.UTC).isoformat(timespec="seconds")
        found.append(KeptGraph(path.name.removesuffix(_SUFFIX), there.st_size, used, model, task))
    return tuple(found)


def clear_graphs() -> int:
    """Remove every graph that is kept, and return how many there were."""
    found = _files(graphs_folder(), hidden=True)
    for path, _ in found:
        path.unlink(missing_ok=True)
    return sum(not path.name.startswith(".") for path, _ in found)


def _files(folder: Path, *, hidden: bool = False) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in folder.glob(f"*{_SUFFIX}"):
        if hidden or not path.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                found.append((path, path.stat()))
    return found


def _path(key: str) -> Path:
    return graphs_folder() / f"{key}{_SUFFIX}"
