"""Data sets on the Hub, by ``hf:org/name[:config][:split]``."""

from __future__ import annotations

import json

from surgeon.errors import EvaluationError
from surgeon.scoring.data.files import class_names
from surgeon.scoring.data.table import Table

PREFIX = "hf:"
_SPLITS = ("validation", "dev", "test", "train")  # what is taken where none is named


def read_hub(name: str) -> Table:
    """Load a data set with the package ``datasets``; integers of its classes keep their names.

    Raises:
        EvaluationError: the package is not there, or cannot load it.
    """
    path, config, split = _parts(name)
    try:
        import datasets
    except ImportError as error:
        raise EvaluationError(
            f"--data {name}: data sets on the Hub take a package; pip install 'norm-surgeon[data]'"
        ) from error
    datasets.disable_progress_bars()
    try:
        if split is None:
            there = datasets.get_dataset_split_names(path, config)
            split = next((known for known in _SPLITS if known in there), there[0])
        loaded = datasets.load_dataset(path, config, split=split)
        rows = tuple(loaded.to_list())
    except Exception as error:  # what it raises has no common type
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise EvaluationError(
            f"--data {name}: {reason[0]}; give hf:org/name, and :config and :split where it has "
            "several"
        ) from error
    classes = class_names(loaded.features.to_dict())
    raw = json.dumps(rows, sort_keys=True, default=str).encode()
    return Table(name, rows, raw, classes=classes)


def _parts(name: str) -> tuple[str, str | None, str | None]:
    """Split the name; one further part is a split where it is called like one, else a config."""
    path, *further = name.removeprefix(PREFIX).split(":")
    if not path or len(further) > 2 or not all(further):
        raise EvaluationError(f"--data {name}: give hf:org/name[:config][:split]")
    if len(further) == 1:
        named = further[0].split("[")[0].split("_")[0]
        return (path, None, further[0]) if named in _SPLITS else (path, further[0], None)
    return (path, further[0], further[1]) if further else (path, None, None)
