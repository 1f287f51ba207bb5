"""What is written in a figure, and whether a person can read it."""

import itertools
import re
import shutil
import subprocess

import pytest
from matplotlib.text import Text

from surgeon.figures import paper

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000")


def on_paper(picture):
    """A picture as matplotlib's figure, with the places of its texts."""
    with paper.own_style():
        figure = paper.draw(picture)
        figure.canvas.draw()
    return figure


def texts_of(figure):
    """All texts that are drawn: no tick beyond the end of its axis, or of an axis put off."""
    undrawn = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not axes.axison or tick not in axis._update_ticks()
        for label in (tick.label1, tick.label2)
    }
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in undrawn
    ]


def assert_legible(figure, *, least):
    """At least so many texts, none on another, none cut off."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure)]
    assert len(boxes) >= least
    for (one, box), (other, further) in itertools.combinations(boxes, 2):
        apart = (
            box.x1 <= further.x0 or further.x1 <= box.x0
            or box.y1 <= further.y0 or further.y1 <= box.y0
        )  # fmt: skip
        assert apart, f"{one!r} lies on {other!r}"
    page = figure.bbox
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
        assert inside, f"{text!r} is cut off"


def assert_loads_nothing(page):
    """A page names nothing that a browser would load for it."""
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page)


def browse(page, *options):
    """What a browser prints of a page, which it draws first."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine; .ci/run installs one where it may")
    command = [browser, *_OPTIONS, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
