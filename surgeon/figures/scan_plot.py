"""The picture of a ranking on paper: PNG, SVG and PDF, by matplotlib."""

from __future__ import annotations

from textwrap import wrap

from matplotlib.figure import Figure

from surgeon.figures import content
from surgeon.figures import paper as paper_evidence
from surgeon.figures.paper import (
    DPI,
    Paper,
    draw_map,
    draw_scale,
    name_dimensions,
    own_style,
    point_at_dimensions,
    saved,
)
from surgeon.ranking import Ranking, ZScores

_WIDTH, _LEFT, _RIGHT = 11.0, 0.8, 0.95  # inches, as all that follows
_TOP, _HEADLINE, _LINE = 0.22, 0.36, 0.2
_CHARACTERS = 135  # of a line
_NAME = 0.22  # what a map shows
_STRIP, _SHORT_STRIP = 0.36, 0.12  # the names of dimensions, and where they point at
_LAYER, _LEAST, _MOST = 0.17, 1.1, 2.7  # a layer's height on a map, and a map's
_BETWEEN, _AXIS = 0.16, 0.62


def render(ranking: Ranking, zscores: ZScores, form: str) -> bytes:
    """Return the picture as the bytes of a file of the ``form`` "png", "svg" or "pdf"."""
    with own_style():
        return saved(draw(ranking, zscores), form)


def draw(ranking: Ranking, zscores: ZScores) -> Figure:
    """Lay the picture out from its top: the words, the maps, the evidence."""
    words = [
        part for line in content.subtitle(ranking, zscores) for part in wrap(line, _CHARACTERS)
    ]
    maps = content.panels(zscores)
    size = min(_MOST, max(_LEAST, _LAYER * len(zscores.rows)))
    first = _TOP + _HEADLINE + _LINE * len(words) + _BETWEEN
    below = first + _STRIP - _SHORT_STRIP + len(maps) * (_NAME + _SHORT_STRIP + size + _BETWEEN)
    lowest = below - _BETWEEN + _AXIS
    paper = Paper.blank(_WIDTH, lowest + paper_evidence.height(ranking))
    headline = paper.text(0.25, _TOP, content.headline(ranking), fontsize=14, fontweight="bold")
    room = (_WIDTH - 0.5) * DPI
    headline.set_fontsize(14 * min(1.0, room / headline.get_window_extent().width))
    for number, line in enumerate(words):
        top = _TOP + _HEADLINE + number * _LINE
        paper.text(0.25, top, line, fontsize=9.5, color=content.QUIET)
    _draw_maps(paper, ranking, zscores, first, size)
    paper_evidence.draw_evidence(paper, ranking, zscores, _LEFT, lowest, _WIDTH - _LEFT - 0.3)
    return paper.figure


def _draw_maps(paper: Paper, ranking: Ranking, zscores: ZScores, top: float, size: float) -> None:
    maps = content.panels(zscores)
    width = _WIDTH - _LEFT - _RIGHT
    for number, (name, values) in enumerate(maps):
        paper.text(_LEFT, top, f"{name.capitalize()}: z-scores", fontsize=10, fontweight="bold")
        top += _NAME
        strip = _SHORT_STRIP if number else _STRIP
        above = paper.axes(_LEFT, top, width, strip)
        (point_at_dimensions if number else name_dimensions)(above, ranking)
        top += strip
        axes = paper.axes(_LEFT, top, width, size)
        image = draw_map(axes, values, zscores.rows)
        if number == 0:
            draw_scale(paper.axes(_LEFT + width + 0.2, top, 0.13, min(size, 2.0)), image)
        if number < len(maps) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("dimension")
        top += size + _BETWEEN
