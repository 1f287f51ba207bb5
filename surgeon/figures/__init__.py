"""Pictures: of a ranking, where the z-scores stand out; of a training run, when they came to."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.edit.files import check_new_file
from surgeon.edit.staging import replace_file
from surgeon.errors import OutputError, SelectionError
from surgeon.ranking import Ranking, ZScores
from surgeon.ranking.agreement import Agreement
from surgeon.study.training_run import Trace

if TYPE_CHECKING:
    from surgeon.figures.picture import Picture


_ENDS = 8192  # bytes of a picture in which it says what made it
# What is before the name of what made a .png, .svg, .pdf or .html: prose may have that name too.
_SIGNS = (b"tEXtSoftware\0", b"<dc:title>", b"/Creator (", b'<meta name="generator" content="')
_RENDERERS = {".png": "paper", ".svg": "paper", ".pdf": "paper", ".html": "page"}


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be written, before anything is computed for it.

    Raises:
        SelectionError: the suffix is none of those that can be drawn.
        OutputError: it is a directory, or there is no such folder, or one that takes no files.
    """
    if path.suffix.lower() not in _RENDERERS:
        *most, last = _RENDERERS
        found = f"the suffix {path.suffix}" if path.suffix else "no suffix"
        raise SelectionError(f"`plot` {path}: has {found}; give {', '.join(most)} or {last}")
    check_new_file(path, force=True, option="plot")


def plot_ranking(ranking: Ranking, zscores: ZScores, path: str | Path | None = None) -> Any:
    """Draw a ranking and the z-scores of the same checkpoint.

    Two maps of layers × dimensions, gain and bias, with the outliers named (or, where there are
    none, the strongest candidates), over the strongest dimensions of the ranking: how far they
    lie from the mean in each layer, the share of layers that flag them, and the damage where it
    was measured. The file appears whole or not at all.

    Args:
        ranking: what a detector found.
        zscores: of the same checkpoint, by ``read_zscores``.
        path: the file to make (None: none); its suffix chooses .png, .svg, .pdf or .html, the
            last a page of its own that loads nothing.

    Returns:
        The matplotlib ``Figure``; for an .html page, plotly's.

    Raises:
        SelectionError: the suffix is none of these.
        OutputError: the file cannot be written there.
    """
    from surgeon.figures.scan import draw_ranking

    return _drawn(draw_ranking(ranking, zscores), path)


def plot_agreement(agreement: Agreement, path: str | Path | None = None) -> Any:
    """Draw what removing each method's first dimensions together does, with its interval.

    Args:
        agreement: by ``compare_detectors``.
        path: as of ``plot_ranking``; returns and raises as that does.
    """
    from surgeon.figures.scan import draw_agreement

    return _drawn(draw_agreement(agreement), path)


def plot_trace(trace: Trace, path: str | Path | None = None) -> Any:
    """Draw the norms over the checkpoints of a training run.

    Over the steps, one panel below the other: gain and bias of each final outlier, signed, and the
    distance that the criterion judges by, each against a band of all other dimensions, with a mark
    where it became an outlier. Where there are none, the strongest dimensions are drawn quietly.

    Args:
        trace: by ``trace_training``.
        path: as of ``plot_ranking``; returns and raises as that does.
    """
    from surgeon.figures.trace import draw_trace

    return _drawn(draw_trace(trace), path)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture that surgeon drew, of which another may take the place."""
    from surgeon.figures.picture import MADE_BY

    with path.open("rb") as file:
        first = file.read(_ENDS)
        file.seek(max(0, path.stat().st_size - _ENDS))
        last = file.read()
    signs = [sign + MADE_BY.encode() for sign in _SIGNS]
    return any(sign in part for sign in signs for part in (first, last))


def _drawn(picture: Picture, path: str | Path | None) -> Any:
    if path is None:
        from surgeon.figures.paper import render

        return render(picture, "png")[0]
    path = Path(path)
    check_picture(path)
    suffix = path.suffix.lower()
    # Imported only when it is used: matplotlib and plotly are slow to come.
    renderer = importlib.import_module(f"surgeon.figures.{_RENDERERS[suffix]}")
    figure, content = renderer.render(picture, suffix.removeprefix("."))
    try:
        replace_file(path, content, is_picture)
    except OSError as error:
        raise OutputError(f"`plot` {path}: {error.strerror}; name another file") from error
    return figure


__all__ = ["check_picture", "plot_agreement", "plot_ranking", "plot_trace"]
