"""The files of a trace: every z-score as Parquet, written as it comes, or the result as JSON.

And, until it is done, what was read of each checkpoint on the Hub, so that a trace that was stopped
goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from surgeon.edit import disk
from surgeon.edit.staging import replace_file
from surgeon.errors import CheckpointError, OutputError
from surgeon.model.files import read_object
from surgeon.model.hub import Listing
from surgeon.ranking.zscores import ZScores
from surgeon.study.table import PARQUET, check_pyarrow, check_suffix, has_columns, open_table
from surgeon.study.trajectories import Trace

AddRows: TypeAlias = Callable[[int, ZScores], None]

_SUMMARY = ".json"
_COLUMNS = ("step", "layer", "dim", "gain_z", "bias_z")


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a file that could not be written, before anything is read for it.

    Raises:
        OutputError: its suffix is neither, pyarrow is not there for a table, the file exists and
            ``force`` is off, or its folder takes no new files.
    """
    advice = f"give {PARQUET} for every z-score, or {_SUMMARY} for the result"
    check_suffix(path, (PARQUET, _SUMMARY), advice)
    if path.suffix.lower() == PARQUET:
        check_pyarrow(path)
    if path.is_dir():
        raise OutputError(f"`output` {path}: is a directory; name a file in it")
    if os.path.lexists(path) and not force:
        raise OutputError(
            f"`output` {path}: already exists; name another, or replace it with `force=True`"
        )
    if not path.parent.is_dir():
        raise OutputError(f"`output` {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"`output` {path}: {path.parent} cannot be written to; name another")
    try:  # some folders, such as /proc, take no files, whatever their permissions say
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OutputError(f"`output` {path}: {error.strerror}; name another") from error


@contextlib.contextmanager
def open_rows(path: Path | None, *, force: bool) -> Iterator[AddRows]:
    """Yield what adds a checkpoint's z-scores to the table at ``path``, which appears at the end.

    A row is a step, a layer (counted through, an encoder's before its decoder's) and a dimension,
    with ``gain_z`` and ``bias_z`` in float32, the latter null where there is no bias. A checkpoint
    is a row group, written before the next is read. For another ``path`` than a ``.parquet`` file,
    rows go nowhere.
    """
    if path is None or path.suffix.lower() != PARQUET:
        yield lambda step, zscores: None  # noqa: ARG005  (the names of the type)
        return
    import pyarrow as pa

    whole, real = pa.int32(), pa.float32()
    names = dict(zip(_COLUMNS, (pa.int64(), whole, whole, real, real), strict=True))
    schema = pa.schema(list(names.items()))

    def add(step: int, zscores: ZScores) -> None:
        layers, hidden = zscores.gain.shape
        bias = np.full_like(zscores.gain, np.nan) if zscores.bias is None else zscores.bias
        columns = [
            np.full(layers * hidden, step),
            np.repeat(np.arange(layers), hidden),
            np.tile(np.arange(hidden), layers),
            zscores.gain.ravel(),
            pa.array(bias.ravel(), mask=np.isnan(bias).ravel()),
        ]
        arrays = [pa.array(c).cast(t) for c, t in zip(columns, names.values(), strict=True)]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    ours = partial(has_columns, names=_COLUMNS) if force else None
    with open_table(path, schema, ours) as writer:
        yield add


def write_result(trace: Trace, path: Path | None, *, force: bool) -> None:
    """Write the result to ``path`` if it is a ``.json`` file."""
    if path is None or path.suffix.lower() != _SUMMARY:
        return
    document = trace.to_json()

    def is_result(there: Path) -> bool:
        try:
            found = read_object(there)
        except (CheckpointError, OSError):
            return False
        return found is not None and found.keys() == document.keys()

    content = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
    replace_file(path, content, is_result if force else None)


def kept_path(listing: Listing, sites_pattern: str | None) -> Path:
    """Return where the z-scores of a checkpoint on the Hub are kept until its trace is done."""
    from huggingface_hub import constants

    folder = Path(constants.HF_ASSETS_CACHE, "norm-surgeon", "trace", *listing.model_id.split("/"))
    asked = hashlib.sha256(repr(sites_pattern).encode()).hexdigest()[:8]
    return folder / f"{listing.commit}-{asked}.npz"


def keep(path: Path, zscores: ZScores, architecture: str) -> None:
    """Write what was read of a checkpoint to ``kept_path``."""
    words = [architecture, zscores.gain_name, zscores.evidence]
    arrays = {"rows": np.array(zscores.rows), "words": np.array(words), "gain": zscores.gain}
    if zscores.bias is not None:
        arrays["bias"] = zscores.bias
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    # Where the cache takes no files, a stopped trace reads again, and that is all.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())


def read_kept(path: Path) -> tuple[ZScores, str] | None:
    """Return the z-scores and the architecture that a trace kept before it was stopped."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            architecture, gain_name, evidence = map(str, kept["words"])
            bias = kept.get("bias")
            rows = tuple(map(str, kept["rows"]))
            return ZScores(rows, kept["gain"], bias, gain_name, evidence), architecture
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # not there, or cut off when the machine stopped: it is read again


def forget(path: Path) -> None:
    """Remove what ``keep`` wrote, and the folders that it made for it."""
    disk.remove(path)
    with contextlib.suppress(OSError):  # there are others in it
        for folder in list(path.parents)[:4]:
            folder.rmdir()
