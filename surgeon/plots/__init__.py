"""A ranking as a picture: where the z-scores stand out, and how sure the ranking is."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

from surgeon.errors import OutputError, SelectionError
from surgeon.outliers import Ranking, ZScores
from surgeon.surgery.staging import replace_file

_RENDERERS = {  # suffix → module of surgeon.plots, imported only when it is used
    ".png": "scan_plot",
    ".svg": "scan_plot",
    ".pdf": "scan_plot",
    ".html": "scan_page",
}


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be written, before anything is computed for it.

    Raises:
        SelectionError: the suffix is none of those that can be drawn.
        OutputError: there is no such folder, or it or the existing file cannot be written to.
    """
    if path.suffix.lower() not in _RENDERERS:
        *most, last = _RENDERERS
        found = f"the suffix {path.suffix}" if path.suffix else "no suffix"
        raise SelectionError(f"--plot {path}: has {found}; give {', '.join(most)} or {last}")
    if path.is_dir():
        raise OutputError(f"--plot {path}: is a directory; name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"--plot {path}: there is no folder {path.parent}; make it first")
    for target in (path.parent, path):
        if target.exists() and not os.access(target, os.W_OK):
            raise OutputError(f"--plot {path}: {target} cannot be written to; name another")


def plot_ranking(ranking: Ranking, zscores: ZScores, path: Path) -> None:
    """Draw a ranking and the z-scores of the same checkpoint.

    Two maps of layers × dimensions, gain and bias, with the outliers named (or, where there are
    none, the strongest candidates), over the strongest dimensions of the ranking: how far they
    lie from the mean in each layer, the share of layers that flag them, and the damage where it
    was measured. The file appears whole or not at all.

    Args:
        ranking: what a detector found.
        zscores: of the same checkpoint, by ``read_zscores``.
        path: the file to make; its suffix chooses .png, .svg, .pdf or .html, the last a page of
            its own that loads nothing.

    Raises:
        SelectionError: the suffix is none of these.
        OutputError: the file cannot be written there.
    """
    check_picture(path)
    suffix = path.suffix.lower()
    module = importlib.import_module(f"surgeon.plots.{_RENDERERS[suffix]}")
    render: Callable[[Ranking, ZScores, str], bytes] = module.render
    content = render(ranking, zscores, suffix.removeprefix("."))
    try:
        replace_file(path, content)
    except OSError as error:
        raise OutputError(f"--plot {path}: {error.strerror}; name another file") from error


__all__ = ["check_picture", "plot_ranking"]
