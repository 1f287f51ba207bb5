"""The pictures themselves: files that open, texts that can be read, outliers that can be seen."""

import functools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from pictures import assert_legible, on_paper
from PIL import Image
from rankings import random_ranking

from surgeon import open_checkpoint, rank_by_layernorm, rank_dimensions, read_zscores
from surgeon.errors import OutputError, SelectionError
from surgeon.figures import chart, plot_ranking
from surgeon.figures.picture import REMOVED
from surgeon.figures.scan import dots, draw_ranking, standing, strongest
from surgeon.ranking import ByLayer

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"

_SITUATIONS = {
    "384 dims, none": {"hidden": 384},
    "384 dims, neighbours": {"hidden": 384, "outliers": (0, 1, 2, 99, 157, 158, 383)},
    "4096 dims, neighbours": {"hidden": 4096, "layers": 32, "outliers": (0, 2533, 2541, 2550)},
    "4096 dims, measured": {"hidden": 4096, "outliers": (1415, 1416, 4095), "measured": True},
    "8192 dims, many": {"hidden": 8192, "layers": 80, "outliers": tuple(range(4000, 4040))},
    "4096 dims, no bias": {"hidden": 4096, "layers": 32, "outliers": (7,), "bias": False},
    "192 dims, 1 layer": {"hidden": 192, "layers": 1, "measured": True},
}


@pytest.mark.parametrize("situation", _SITUATIONS)
def test_no_text_lies_on_another_or_is_cut_off(situation):
    figure = on_paper(draw_ranking(*random_ranking(**_SITUATIONS[situation])))
    assert_legible(figure, least=41)


def test_every_outlier_is_named_and_its_name_points_at_its_column():
    outliers = (0, 2533, 2541, 2550)
    figure = on_paper(draw_ranking(*random_ranking(hidden=4096, outliers=outliers)))
    strip = figure.axes[0]
    assert {int(text.get_text()) for text in strip.texts} == set(outliers)
    for text, line in zip(strip.texts, strip.lines, strict=True):
        assert line.get_xdata()[-1] == int(text.get_text())
        assert line.get_xdata()[0] == pytest.approx(text.get_position()[0])


@pytest.fixture(scope="module")
def redder(tmp_path_factory):
    """Give how much redder than blue each pixel of a scan is, where no cell but these is strong."""
    path = tmp_path_factory.mktemp("cells") / "scan.png"
    ranking, zscores = random_ranking(hidden=4096, layers=32, outliers=())
    ranking = replace(ranking, dimensions=ranking.dimensions[:1])

    @functools.cache
    def drawn(*cells):
        gain = np.zeros((32, 4096))
        for dim, value in cells:
            gain[9, dim] = value
        plot_ranking(ranking, replace(zscores, gain=gain, bias=0 * gain), path)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        return pixels[..., 0] - pixels[..., 2]

    return drawn


@pytest.mark.parametrize(("dim", "sign"), [(0, 1), (2047, -1), (4095, 1)])
def test_one_cell_of_4096_columns_is_seen_in_the_pixels(redder, dim, sign):
    seen, blank = redder((dim, 8 * sign)), redder()
    more = (sign * seen > 60).sum() - (sign * blank > 60).sum()
    assert more >= 3 * 10  # pixels wide and high


def test_a_png_a_pdf_and_an_svg_are_what_they_are_called(tmp_path):
    ranking, zscores = random_ranking(hidden=4096, layers=32, outliers=(7, 9), measured=True)
    for name in ("scan.png", "scan.pdf", "scan.svg"):
        plot_ranking(ranking, zscores, tmp_path / name)
        assert 20_000 < (tmp_path / name).stat().st_size < 2_000_000
    with Image.open(tmp_path / "scan.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 2200
    plot_ranking(*random_ranking(hidden=16), tmp_path / "SMALL.PNG")
    assert (tmp_path / "SMALL.PNG").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "scan.pdf").read_bytes().startswith(b"%PDF-")
    root = ET.parse(tmp_path / "scan.svg").getroot()
    assert root.tag == f"{_SVG}svg"
    targets = [element.get(_LINK, "") for element in root.iter()]
    assert all(target.startswith(("#", "data:")) for target in targets if target)


class _References(HTMLParser):
    """Everything that a browser would load for a page."""

    def __init__(self):
        super().__init__()
        self.found, self.title, self.policy = [], "", ""
        self._in_title = False

    def handle_starttag(self, tag, attributes):
        self._in_title = tag == "title"
        given = dict(attributes)
        self.found += [given[key] for key in ("src", "href", "srcset", "data") if given.get(key)]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]

    def handle_data(self, data):
        if self._in_title:
            self.title += data

    def handle_endtag(self, _):
        self._in_title = False


def test_a_page_holds_all_it_needs_and_forbids_the_rest(tmp_path):
    path = tmp_path / "scan.html"
    plot_ranking(*random_ranking(hidden=4096, layers=32, outliers=(7, 9), measured=True), path)
    page = path.read_text(encoding="utf-8")
    assert 3_000_000 < len(page) < 12_000_000
    references = _References()
    references.feed(page)
    assert references.found == []
    assert references.policy.startswith("default-src 'none'")
    assert "http" not in references.policy
    assert references.title == "random: 2 outlier dimensions (7, 9)"
    assert "Plotly.newPlot" in page


@pytest.mark.parametrize(
    "suffix", ["png", *(pytest.param(s, marks=pytest.mark.slow) for s in ("svg", "pdf")), "html"]
)
def test_the_same_ranking_gives_the_same_bytes(tmp_path, suffix):
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{suffix}"
        plot_ranking(*random_ranking(hidden=384, outliers=(3,)), path)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_name_that_the_font_has_not_is_drawn_without_a_word(recwarn):
    ranking, zscores = random_ranking(hidden=16)
    plot_ranking(replace(ranking, model="模型"), zscores)
    assert not recwarn.list


def test_a_layer_without_a_bias_is_drawn(tmp_path):
    ranking, zscores = random_ranking(hidden=64)
    bias = zscores.bias.copy()
    bias[2] = np.nan
    for suffix in ("png", "html"):
        plot_ranking(ranking, replace(zscores, bias=bias), tmp_path / f"scan.{suffix}")
        assert (tmp_path / f"scan.{suffix}").exists()


def test_an_encoder_is_set_off_from_its_decoder():
    ranking, zscores = random_ranking(hidden=64, layers=4)
    rows = ("enc 0", "enc 1", "dec 0", "dec 1")
    figure = on_paper(draw_ranking(ranking, replace(zscores, rows=rows)))
    gain = figure.axes[1]
    assert [label.get_text() for label in gain.get_yticklabels()] == list(rows)
    assert [line.get_ydata()[0] for line in gain.lines] == [1.5]


@pytest.mark.parametrize("name", ["scan", "scan.jpg", "scan.gz"])
def test_another_suffix_is_refused_with_those_that_are_known(tmp_path, name):
    with pytest.raises(SelectionError, match=r"\.png, \.svg, \.pdf or \.html"):
        plot_ranking(*random_ranking(hidden=16), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "missing" / "scan.png", "there is no folder"),
        (tmp_path / "file" / "scan.png", "there is no folder"),
        (tmp_path / "folder.png", "is a directory"),
        (Path("/proc/scan.png"), ""),
    ):
        with pytest.raises(OutputError, match=re.escape(f"`plot` {path}: {reason}")):
            plot_ranking(*random_ranking(hidden=16), path)


def test_a_picture_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "scan.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(OutputError, match="No space left"):
        plot_ranking(*random_ranking(hidden=16), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _full(descriptor):
    raise OSError(28, "No space left on device")


def test_drawing_leaves_the_caller_s_matplotlib_as_it_was(tmp_path):
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black"}):
        plot_ranking(*random_ranking(hidden=64), tmp_path / "odd.png")
        assert mpl.rcParams["font.size"] == 40
    assert dict(mpl.rcParams) == before
    plot_ranking(*random_ranking(hidden=64), tmp_path / "plain.png")
    assert (tmp_path / "odd.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def _by_size(largest):
    """A ranking by size: every layer of dim 7 at ``largest`` times the median, the rest below 3."""
    ranking, zscores = random_ranking(hidden=384, outliers=(7,))
    values = np.full((6, 384), 1.5)
    values[:, 7] = largest
    values[0, 9] = 1e-32  # a gain of 0, as MiniLM has one
    sizes = ByLayer(values, 3.0, " ×", "Size of what is written, by layer", "size", ratios=True)
    return replace(ranking, method="activations", by_layer=sizes), zscores


@pytest.mark.parametrize("largest", [5.0, 5000.0])
def test_the_dots_are_what_the_method_judges_by_and_so_is_the_line(largest):
    ranking, zscores = _by_size(largest)
    figure = on_paper(draw_ranking(ranking, zscores))
    assert_legible(figure, least=41)
    (panel,) = (axes for axes in figure.axes if "one dot per layer" in axes.get_xlabel())
    row = panel.collections[-len(strongest(ranking))]
    assert (row.get_offsets()[:, 0] == largest).all()
    assert panel.lines[0].get_xdata()[0] == 3.0
    assert "3 ×" in [text.get_text() for text in panel.texts]
    page = chart.draw(draw_ranking(ranking, zscores))
    assert "<b>Size of what is written, by layer</b>" in [a.text for a in page.layout.annotations]
    first = next(trace for trace in page.data if trace.type == "scatter")
    assert (np.array(first.x) == largest).all()
    assert {shape.x0 for shape in page.layout.shapes} == {3.0}


def test_a_sigma_of_two_is_a_line_at_two(tiny):
    checkpoint = open_checkpoint(tiny("bert"))
    zscores = read_zscores(checkpoint)
    ranking = rank_by_layernorm(checkpoint, sigma=2.0)
    assert dots(ranking, zscores).threshold == 2.0
    for method in ("layernorm", "layernorm-count"):
        ranking = rank_dimensions(checkpoint, method)
        values = dots(ranking, zscores).values
        for dimension in ranking.dimensions:
            filled = tuple(np.flatnonzero(values[:, dimension.dim] > 3.0))
            assert dimension.layers == filled


def test_what_was_removed_is_named_among_all_whatever_its_rank():
    ranking, zscores = random_ranking(hidden=384, outliers=(7,))
    last = ranking.dimensions[-1].dim
    assert standing(ranking, (7, last)).endswith(f"7 is number 1, {last} is number 384")
    figure = chart.draw(draw_ranking(ranking, zscores, (last, 7)))
    names = [a.text for a in figure.layout.annotations if a.text]
    assert {f"<b>{last}</b>", "<b>7</b>"} <= set(names)
    rows = str([axis.ticktext for axis in figure.select_yaxes()])
    assert f"{last} removed</b>" in rows
    assert "7 removed</b>" in rows
    assert rows.count(REMOVED) == 2
