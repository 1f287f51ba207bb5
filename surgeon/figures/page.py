"""What every page has in common: HTML in one file, whose policy lets it load nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from surgeon.edit.files import check_new_file
from surgeon.edit.staging import replace_file
from surgeon.errors import OutputError
from surgeon.figures import is_picture
from surgeon.figures.chart import draw, embedded
from surgeon.figures.picture import FAINT, INK, MADE_BY, QUIET, Picture
from surgeon.harmless import html

_SUFFIXES = (".html", ".htm")

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<meta name="generator" content="{made_by}">
<style>
:root {{ color-scheme: light dark; --ink: {ink}; --quiet: {quiet}; --faint: {faint}; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8eaec; --quiet: #a3afb9; --faint: #3a444d; }}
  body {{ background: #141414; }}  /* white, as the filter makes it */
  .chart {{ filter: invert(.92) hue-rotate(180deg); }}
}}
body {{ margin: 1.6rem auto; max-width: 1240px; padding: 0 1rem; color: var(--ink);
  font: 15px/1.45 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }}
h1 {{ font-size: 1.45rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .4rem; }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 .2rem; }}
p {{ margin: 0; color: var(--quiet); overflow-wrap: anywhere; }}
p.verdict {{ color: var(--ink); font-size: 1.1rem; margin: .6rem 0; }}
table {{ border-collapse: collapse; margin: .8rem 0; display: block; overflow-x: auto; }}
th, td {{ padding: .25rem .9rem .25rem 0; text-align: left;
  border-bottom: 1px solid var(--faint); }}
.chart {{ overflow-x: auto; background: #fff; margin: .6rem 0; }}
.chart > svg {{ max-width: 100%; height: auto; }}
.wide > * {{ min-width: 960px; }}
pre {{ margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def render(picture: Picture, form: str) -> tuple[Any, bytes]:  # noqa: ARG001  (only HTML)
    """Return a picture as plotly's figure, and it as the bytes of a page of its own.

    Its policy forbids the browser to load anything, so that nobody learns that it was opened.
    """
    figure = draw(picture)
    body = f"{paragraphs(picture.words)}\n{embedded(figure, 'picture', first=True)}"
    return figure, page(picture.headline, body)


def page(title: str, body: str) -> bytes:
    """Return a page as the bytes of a file; ``body`` is HTML, ``title`` plain text."""
    whole = _PAGE.format(
        title=html(title), body=body, made_by=MADE_BY, ink=INK, quiet=QUIET, faint=FAINT
    )
    return whole.encode()


def write_page(path: Path, title: str, sections: Iterable[str], *, force: bool) -> None:
    """Write a page of sections of HTML; with ``force`` over one that is there, if it is a page."""
    replace_file(path, page(title, "\n".join(sections)), is_picture if force else None)


def paragraphs(lines: Iterable[str]) -> str:
    """Return lines of plain text as HTML, one paragraph each."""
    return "\n".join(f"<p>{html(line)}</p>" for line in lines)


def table(
    heads: list[str], rows: list[list[str]], numbers: int = 0, most: int = 40, more: str = ""
) -> str:
    """Return a table of plain text; the last ``numbers`` columns are set as numbers.

    Of more than ``most`` rows, the first are in it, and a line says how many ``more`` there are.
    """

    def cells(tag: str, texts: list[str]) -> str:
        first = len(texts) - numbers
        marks = (' class="number"' if place >= first else "" for place in range(len(texts)))
        inner = (f"<{tag}{m}>{html(t)}</{tag}>" for m, t in zip(marks, texts, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    head, body = cells("th", heads), "\n".join(cells("td", row) for row in rows[:most])
    left = len(rows) - most
    note = f"<p>and {left:,} more {more}</p>" if left > 0 else ""
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>{note}"


def check_page(path: Path, *, force: bool) -> None:
    """Refuse a page that could not be written, before anything is read for it.

    Raises:
        OutputError: its name is not one of a page, or it is not as ``check_new_file`` says.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"`output` {path}: a report is a page; give it a name that ends in .html")
    check_new_file(path, force=force)
