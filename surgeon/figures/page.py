"""What every page has in common: HTML in one file, whose policy lets it load nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import plotly.graph_objects as go

from surgeon.errors import OutputError
from surgeon.figures import content
from surgeon.harmless import html, in_chart
from surgeon.ranking import (
    Measured,
    Ranking,
    ZScores,
)

BAND = "rgba(95, 107, 118, 0.16)"
"""The colour of what random removals do."""

FONT = {"family": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", "color": content.INK}

_SUFFIXES = (".html", ".htm")

_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
    "plotlyServerURL": "",  # nowhere to send the chart to
    "responsive": True,
}

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 1.6rem auto; min-width: 1000px; max-width: 1240px; padding: 0 1rem; color: {ink};
  font: 15px/1.45 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }}
h1 {{ font-size: 1.45rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .4rem; }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 .2rem; }}
p {{ margin: 0; color: {quiet}; }}
p.verdict {{ color: {ink}; font-size: 1.1rem; margin: .6rem 0; }}
table {{ border-collapse: collapse; margin: .8rem 0; }}
th, td {{ padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid {faint}; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(title: str, body: str) -> bytes:
    """Return a page as the bytes of a file; ``body`` is HTML, ``title`` plain text."""
    whole = _PAGE.format(
        title=html(title), body=body, ink=content.INK, quiet=content.QUIET, faint=content.FAINT
    )
    return whole.encode()


def is_page(path: Path) -> bool:
    """Whether a file is a page that ``page`` made."""
    start = _PAGE.partition("<title>")[0].encode()
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def paragraphs(lines: list[str]) -> str:
    """Return lines of plain text as HTML, one paragraph each."""
    return "\n".join(f"<p>{html(line)}</p>" for line in lines)


def chart(figure: go.Figure, name: str, *, first: bool) -> str:
    """Return a figure as HTML. The first of a page brings the script that draws them all.

    ``name`` is its id in the page: a random one would differ from run to run.
    """
    drawn: Any = figure.to_html(
        full_html=False, include_plotlyjs=first, div_id=name, config=_CONFIG
    )
    return str(drawn)


def table(heads: list[str], rows: list[list[str]], numbers: int = 0) -> str:
    """Return a table of plain text; the last ``numbers`` columns are set as numbers."""

    def cells(tag: str, texts: list[str]) -> str:
        first = len(texts) - numbers
        marks = (' class="number"' if place >= first else "" for place in range(len(texts)))
        inner = (f"<{tag}{m}>{html(t)}</{tag}>" for m, t in zip(marks, texts, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    return f"<table>\n<thead>{cells('th', heads)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def framed(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Give a chart the frame that all have; ``title`` is of the x axis, ``height`` in pixels."""
    figure.update_xaxes(title=title, zeroline=False)
    figure.update_yaxes(zeroline=False)
    figure.update_layout(
        height=height,
        margin={"l": 140, "r": 20, "t": 40, "b": 60},
        font=FONT,
        plot_bgcolor="#f5f7f8",
    )
    return figure


def check_page(path: Path, *, force: bool) -> None:
    """Refuse a page that could not be written, before anything is read for it.

    Raises:
        OutputError: the file exists and ``force`` is off, its name is not one of a page, or there
            is no such folder.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"-o {path}: a report is a page; give it a name that ends in .html")
    if path.exists() and not force:
        raise OutputError(f"-o {path}: already exists; name another, or replace it with --force")
    if path.is_dir() or not path.parent.is_dir():
        raise OutputError(f"-o {path}: name a file in a directory that exists")


Removed: TypeAlias = tuple[int, ...]


def add_evidence(
    figure: go.Figure, row: int, ranking: Ranking, zscores: ZScores, removed: Removed = ()
) -> None:
    """Fill both panels of a row: the layers, and the damage or else what judges each layer."""
    _add_shares(figure, row, ranking, zscores.rows, removed)
    if ranking.measured:
        _add_damage(figure, row, ranking, ranking.measured)
    else:
        _add_dots(figure, row, ranking, zscores, removed)
    _name_rows(figure, row, ranking, removed)


def _name_rows(figure: go.Figure, row: int, ranking: Ranking, removed: Removed) -> None:
    """Name the rows of both panels of the ranking, outliers and what was removed in bold."""
    shown = content.strongest(ranking, removed)
    figure.update_yaxes(
        range=[len(shown) - 0.5, -0.5],
        tickvals=list(range(len(shown))),
        ticklabelstandoff=4,
        row=row,
    )
    marked = {*ranking.outliers, *removed}
    names = [
        f"<b style='color:{content.colour(d.dim, ranking, removed)}'>{d.dim}"
        f"{' removed' if d.dim in removed else ''}</b>"
        if d.dim in marked
        else d.dim
        for d in shown
    ]
    figure.update_yaxes(ticktext=names, title="dimension, strongest first", row=row, col=1)
    figure.update_yaxes(showticklabels=False, row=row, col=2)


def _colours(ranking: Ranking, removed: Removed) -> list[str]:
    shown = content.strongest(ranking, removed)
    return [content.colour(d.dim, ranking, removed) for d in shown]


def _add_shares(
    figure: go.Figure, row: int, ranking: Ranking, labels: tuple[str, ...], removed: Removed
) -> None:
    shown = content.strongest(ranking, removed)
    flagged = [", ".join(labels[layer] for layer in d.layers) or "none" for d in shown]
    figure.add_trace(
        go.Bar(
            x=[len(d.layers) / ranking.layers for d in shown],
            y=list(range(len(shown))),
            orientation="h",
            width=0.6,
            marker_color=_colours(ranking, removed),
            text=[f"{len(d.layers)} of {ranking.layers}" for d in shown],
            textposition="outside",
            cliponaxis=False,
            customdata=[[d.dim, layers] for d, layers in zip(shown, flagged, strict=True)],
            hovertemplate="dim %{customdata[0]}, flagged by: %{customdata[1]}<extra></extra>",
        ),
        row=row,
        col=1,
    )
    figure.update_xaxes(
        range=[0, 1.4], tickvals=[0, 0.5, 1], tickformat=".0%", title="share of layers",
        row=row, col=1,
    )  # fmt: skip


def _add_dots(
    figure: go.Figure, row: int, ranking: Ranking, zscores: ZScores, removed: Removed
) -> None:
    judged_by = content.dots(ranking, zscores)
    for place, (dimension, colour) in enumerate(
        zip(content.strongest(ranking, removed), _colours(ranking, removed), strict=True)
    ):
        layers = range(len(zscores.rows))
        figure.add_trace(
            go.Scatter(
                x=judged_by.values[:, dimension.dim].round(3),
                y=[place] * len(zscores.rows),
                mode="markers",
                marker={
                    "size": 8,
                    "color": [colour if n in dimension.layers else "white" for n in layers],
                    "line": {"color": colour, "width": 1.2},
                },
                customdata=zscores.rows,
                hovertemplate=f"dim {dimension.dim}, layer %{{customdata}}: "
                f"%{{x:.2f}}{judged_by.unit}<extra></extra>",
            ),
            row=row,
            col=2,
        )
    line = f"dashed: {judged_by.threshold:g}{judged_by.unit}"
    words = f"{content.dots_axis(judged_by)}; {line}".replace("\n", "<br>")
    scale = {"type": "log", "dtick": "D2"} if judged_by.ratios else {"rangemode": "tozero"}
    figure.add_vline(x=judged_by.threshold, line={"dash": "dash", "width": 1}, row=row, col=2)
    figure.update_xaxes(title=words, row=row, col=2, **scale)


def _add_damage(figure: go.Figure, row: int, ranking: Ranking, measured: Measured) -> None:
    for place, (dimension, colour) in enumerate(
        zip(content.strongest(ranking), _colours(ranking, ()), strict=True)
    ):
        if dimension.damage is None:
            told = {"text": ["not measured"], "textfont": {"color": content.QUIET}}
            trace = go.Scatter(x=[0], y=[place], mode="text", textposition="middle right", **told)
            figure.add_trace(trace, row=row, col=2)
            continue
        low, high = dimension.interval or (dimension.damage, dimension.damage)
        figure.add_trace(
            go.Scatter(
                x=[dimension.damage],
                y=[place],
                error_x={
                    "array": [high - dimension.damage],
                    "arrayminus": [dimension.damage - low],
                    "thickness": 2.5,
                    "width": 0,
                },
                mode="markers",
                marker={"size": 9, "color": colour},
                hovertemplate=f"dim {dimension.dim}: {content.signed(dimension.damage)} "
                f"({content.signed(low)} to {content.signed(high)})<extra></extra>",
            ),
            row=row,
            col=2,
        )
    # Shapes are left out of panels that have no trace yet.
    low, high = measured.control_range
    figure.add_vrect(
        x0=low, x1=high, fillcolor="#cfd8dc", line_width=0, layer="below", row=row, col=2
    )
    figure.add_vline(x=measured.min_damage, line={"dash": "dash", "width": 1}, row=row, col=2)
    figure.update_xaxes(
        title=f"rise of the {in_chart(measured.metric)}, with its 95% interval "
        f"({in_chart(measured.unit)});<br>grey: random removals; dashed: least damage that counts",
        row=row,
        col=2,
    )
