"""Which figures the rows of a sweep make, and the page that shows them."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from forked import in_process
from pictures import assert_loads_nothing, browse

from surgeon import write_sweep_report
from surgeon.cli import run
from surgeon.errors import OutputError
from surgeon.figures import chart
from surgeon.figures.grouping import model_name, short_names, subjects
from surgeon.figures.picture import Lines, Map, Strip
from surgeon.figures.sweep import draw_sweep
from surgeon.study.grid import Model, check_grid
from surgeon.study.sweep import run_sweep
from surgeon.study.sweep_folder import Measurement, read_rows


def _row(dims, delta, *, factor=None, layers=None, selection="dims", seed=0, band=(-0.1, 0.1)):
    return Measurement(
        model=Model(model="m"),
        selection=selection,
        mode="zero" if factor is None else "scale",
        target="gain and bias",
        factor=factor,
        layers=layers,
        dims=dims,
        task="mlm",
        metric="loss",
        data=None,
        mask_rate=None,
        controls=None,
        seed=seed,
        examples=9,
        baseline=2.0,
        delta=delta,
        ci95=(delta - 0.05, delta + 0.05),
        control_range=band,
        verdict="degraded" if delta > band[1] else "intact",
    )


def _pictures(rows):
    return draw_sweep(rows, "loss\n(nats)")


def _panels(rows):
    """Every panel of every picture."""
    return [panel for drawn in _pictures(rows) for row in drawn.rows for panel in row]


def _points(dose):
    (line,) = dose.lines
    return list(zip(line.xs, line.ys, line.hollow, strict=True))


def test_single_dimensions_make_a_strip_over_their_dims_with_the_strongest_named():
    rows = [_row((dim,), 1.0 if dim == 7 else 0.01 * dim) for dim in reversed(range(12))]
    (strip,) = _panels(rows)
    assert isinstance(strip, Strip)
    assert strip.dims.tolist() == list(range(12))
    np.testing.assert_allclose(strip.values[[0, 7, 11]], [0, 1.0, 0.11])
    assert (strip.span.low, strip.span.high) == (-0.1, 0.1)
    assert strip.named == (7,)
    (with_drawn,) = _panels([*rows, _row((500,), 0.0, selection="random")])
    assert with_drawn.dims.tolist() == list(range(12))


def test_of_many_single_dimensions_the_others_are_the_controls():
    """A control that happens to be an outlier would hide all others."""
    rows = [_row((d,), 1.0 if d in (7, 9) else 0.001 * d, band=(0, 1.0)) for d in range(100)]
    (strip,) = _panels(rows)
    assert strip.span.high < 0.2
    assert set(strip.named) == {7, 9}


def test_single_dimensions_in_single_layers_make_a_map():
    rows = [_row((dim,), dim + layer / 10, layers=(layer,)) for dim in range(9) for layer in (3, 1)]
    found = _pictures([*rows, _row((4,), 9.0, layers=(1, 3))])
    (picture,) = [one for one in found if isinstance(one.rows[0][0], Map)]
    (heatmap,) = chart.draw(picture).data
    assert heatmap.hovertemplate.startswith("dim %{customdata}, layer %{y}: change %{z")
    drawn = picture.rows[0][0]
    assert drawn.rows == ("1", "3")
    np.testing.assert_allclose(drawn.raster.values[1], np.arange(9) + 0.3)
    strips = [one.headline for one in found if isinstance(one.rows[0][0], Strip)]
    assert [title.rpartition(", ")[2] for title in strips] == ["layer 3", "layer 1"]


def test_more_dims_make_a_dose_only_where_each_set_holds_the_smaller_one():
    nested = [_row((1,), 0.2), _row((1, 5), 0.5), _row((5, 1, 2), 0.9)]
    random = [
        _row(dims, 0.02 * len(dims), selection="random", seed=seed)
        for seed, dims in enumerate([(8,), (9,), (8, 3), (4, 9)])
    ]
    doses = _panels([*nested, *random])
    assert all(isinstance(dose, Lines) for dose in doses)
    assert [(dose.title, dose.lines[0].xs) for dose in doses] == [
        ("dims 5, 1, 2", [1, 2, 3]),
        ("random dims", [1, 2]),
    ]
    assert doses[0].lines[0].ys == [0.2, 0.5, 0.9]
    assert _panels([_row((1,), 0.2), _row((2, 5), 0.5)]) == []


def test_factors_make_a_dose_whose_points_span_the_seeds():
    rows = [
        _row((1, 2), factor * seed, factor=factor, seed=seed)
        for factor in (4, 0.5)
        for seed in (1, 3)
    ]
    (dose,) = _panels(rows)
    (line,) = dose.lines
    assert (dose.x_title, dose.title, line.xs) == ("factor", "dims 1, 2", [0.5, 1, 4])
    assert (line.ys[2], line.low[2], line.high[2]) == (8.0, 3.95, 12.05)


def test_zero_and_what_changes_nothing_are_doses_of_a_factor():
    rows = [_row((1, 2), 0.9), _row((1, 2), 0.4, factor=0.5), _row((1, 2), 0.3, factor=2)]
    (dose,) = [panel for panel in _panels(rows) if panel.x_title == "factor"]
    assert _points(dose) == [(0, 0.9, False), (0.5, 0.4, False), (1, 0, True), (2, 0.3, False)]


def test_sets_whose_first_dims_are_the_same_are_curves_of_their_own():
    rows = [
        _row(dims, delta, layers=(layer,))
        for layer in (0, 1)
        for dims, delta in (((0, 1, 2, 3, 4), 0.1), ((0, 1, 2, 3, 9), 0.7))
    ]
    assert [(dose.title, dose.lines[0].ys[0]) for dose in _panels(rows)] == [
        ("dims 0, 1, 2, 3, 4", 0.1),
        ("dims 0, 1, 2, 3, 9", 0.7),
    ]


def test_a_nested_dose_is_found_among_single_dimensions():
    singles = [_row((dim,), dim / 10) for dim in range(8)]
    _, dose = _panels([*singles, _row((3, 7), 0.9), _row((3, 7, 1), 1.5)])
    assert _points(dose) == [(1, 0.3, False), (2, 0.9, False), (3, 1.5, False)]


def test_each_curve_is_drawn_on_what_random_removals_of_as_many_dims_did():
    rows = [
        _row(dims, 0.5, factor=factor, band=band)
        for factor in (0.5, 2)
        for dims, band in (((1, 2), (-0.1, 0.1)), ((3, 4, 5), (0.2, 0.9)))
    ]
    (dose,) = _pictures(rows)
    drawn = chart.draw(dose)
    bands = {trace.xaxis: trace for trace in drawn.data if trace.fill}
    assert {name: (min(band.y), max(band.y)) for name, band in bands.items()} == {
        "x": (-0.1, 0.1),
        "x2": (0, 0.9),  # 0 at the factor 1
    }
    lines = {trace.xaxis: list(trace.x) for trace in drawn.data if not trace.fill}
    assert lines == {"x": [0.5, 1, 2], "x2": [0.5, 1, 2]}


def test_a_strip_says_what_its_colours_are_and_has_whole_dimensions():
    rows = [_row((dim,), 1.0 if dim == 7 else 0.01) for dim in range(9)]
    (strip,) = _pictures(rows)
    drawn = chart.draw(strip)
    band, *_ = [shape for shape in drawn.layout.shapes if shape.showlegend]
    named = {trace.name: list(trace.x) for trace in drawn.data}
    assert [*named.values()] == [[0, 1, 2, 3, 4, 5, 6, 8], [7]]
    assert (band.name, band.y0, band.y1) == ("one at random", -0.1, 0.1)
    assert all(trace.showlegend for trace in drawn.data)
    assert drawn.layout.xaxis.tickvals == tuple(range(9))
    assert (drawn.layout.xaxis.title.text, drawn.layout.yaxis.title.text) == (
        "dimension edited",
        "change of the loss<br>(nats)",
    )


def test_layers_that_were_not_measured_part_the_line_and_the_band():
    rows = [_row((1, 2), 0.1 * layer, layers=(layer,)) for layer in (0, 1, 4)]
    (dose,) = _pictures(rows)
    band, line = chart.draw(dose).data
    np.testing.assert_array_equal(line.x, [0, 1, np.nan, 4])
    assert [x for x in band.x if x is None or x > 1] == [None, 3.8, 4.2, 4.2, 3.8]


def test_what_was_measured_differently_is_not_averaged():
    row = _row((1, 2), 0.1)
    others = [
        {"model": Model(model="/a/m")},
        {"model": Model(model="/b/m")},
        {"data": "/a/d.txt"},
        {"data": "/b/d.txt"},
        {"mask_rate": 0.5},
    ]
    rows = [row, *(dataclasses.replace(row, **other) for other in others)]
    assert [len(same) for same in subjects(rows)[0].values()] == [1] * 6


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/a/m", "/x/b/m", "/x/n"], ["a/m", "b/m", "n"]),
        (["/m", "/x/m"], ["/m", "x/m"]),
        (["org/m", "/x/org/m"], ["org/m", "m"]),
    ],
)
def test_a_name_shows_as_much_of_a_path_as_tells_it_from_others(paths, names):
    found = short_names([Model(model=path) for path in paths], model_name)
    assert [found[Model(model=path)] for path in paths] == names


def test_layers_one_by_one_make_a_figure_and_other_models_and_tasks_none_together():
    rows = [_row((1, 2), 0.1 * layer, layers=(layer,)) for layer in (2, 0)]
    (dose,) = _pictures(rows)
    assert dose.headline.startswith("One layer at a time")
    (line,) = dose.rows[0][0].lines
    np.testing.assert_array_equal(line.xs, [0, np.nan, 2])
    groups, _ = subjects([*rows, dataclasses.replace(rows[0], model=Model(model="n"))])
    assert list(groups) == ["m: mlm", "n: mlm"]


@pytest.fixture(scope="module")
def swept(small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    (folder / "lines.txt").write_text("a b c d e f\nz y x w v u\n")
    (folder / "grid.yaml").write_text(
        f"models: [{json.dumps(str(small_model))}, gone]\n"
        "selections: [{each: 0-9}]\n"
        "operations: [{}, {mode: scale, factor: [0.5, 2]}]\n"
        "layers: [all, 0, 1]\n"
        "tasks: [{data: lines.txt, controls: 2}]\n"
    )
    run_sweep(check_grid(folder / "grid.yaml").valid(), folder / "out", engine=in_process)
    return folder / "out"


def test_the_page_of_a_sweep_has_its_figures_its_rows_and_its_failures(swept, tmp_path, capsys):
    read = read_rows(swept)
    measured = read.measured
    assert (len(measured), len(read.failed), read.others) == (90, 90, 0)
    assert run(["report", str(swept), "-o", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "90 cells measured" in text
    assert "90 failed" in text
    assert text.count("One dimension at a time:") == 9
    assert text.count("One dimension in one layer:") == 3
    assert "<h2>small: mlm on lines.txt</h2>" in text
    assert re.search(r"<td>gone</td><td>[^<]*gone[^<]*</td>", text)
    assert_loads_nothing(text)
    strongest = max(measured, key=lambda row: abs(row.delta))
    assert f"{strongest.delta:+.4g}</td>".replace("-", "−") in text
    assert "loss<br>(nats per masked token)" in text.replace("\\u003c", "<").replace("\\u003e", ">")
    capsys.readouterr()
    assert run(["report", str(swept), "-o", str(tmp_path / "page.html")]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.slow
def test_a_browser_draws_the_figures_of_a_sweep(swept, tmp_path):
    write_sweep_report(swept, tmp_path / "page.html")
    drawn = browse(tmp_path / "page.html", "--dump-dom")
    charts = len(re.findall(r'id="figure-\d+" class="[^"]*js-plotly-plot', drawn))
    assert charts == drawn.count("<h3>") > 9


def test_damaged_rows_and_none_are_told_in_a_line(swept, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(swept, damaged)
    (damaged / "grid.json").write_text('{"cells": 1}')
    with pytest.raises(OutputError, match=r"grid\.json: is not a list of cells"):
        write_sweep_report(damaged, tmp_path / "page.html")
    (damaged / "grid.json").unlink()  # a folder of before there was one has all its rows
    assert len(read_rows(damaged).measured) == 90
    rows = damaged / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text(whole.replace('"delta":', '"delta":[],"was":', 1))
    with pytest.raises(OutputError, match=r"rows\.jsonl:1: is not a row of a sweep \(1 valid"):
        write_sweep_report(damaged, tmp_path / "page.html")
    rows.write_text(whole)
    rows.write_text('{"cell": "x", "status": "done"}\n' + rows.read_text())
    with pytest.raises(OutputError, match=r"rows\.jsonl:1: is not a row of a sweep"):
        write_sweep_report(damaged, tmp_path / "page.html")
    rows.write_text("")
    with pytest.raises(OutputError, match="holds no row yet"):
        write_sweep_report(damaged, tmp_path / "page.html")
    with pytest.raises(OutputError, match="it is not a sweep directory"):
        write_sweep_report(tmp_path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_sweep_of_which_nothing_was_measured_has_a_page_of_its_failures(swept, tmp_path):
    none = tmp_path / "none"
    none.mkdir()
    lines = (swept / "rows.jsonl").read_text().splitlines(keepends=True)
    shutil.copy(swept / "grid.json", none)
    (none / "rows.jsonl").write_text("".join(line for line in lines if '"failed"' in line))
    write_sweep_report(none, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<p>0 cells measured; 90 failed.</p>" in text
    assert "whiskers" not in text.lower()


@pytest.mark.parametrize(
    ("folder", "page", "complaint"),
    [
        ("", "page.pdf", "page.pdf: a report is a page; give it a name that ends in .html"),
        ("nothere", "page.html", "nothere: is neither an artifact (which has surgeon/record.json)"),
        ("models", "page.html", "nor the results of a sweep (which have rows.jsonl)"),
    ],
)
def test_what_is_no_report_is_refused_in_a_line(swept, tmp_path, refused, folder, page, complaint):
    refused("report", swept / folder, "-o", tmp_path / page, says=complaint)
    assert not (tmp_path / page).exists()


def test_a_report_has_the_rows_of_the_last_grid_alone(swept, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(swept, out, ignore=shutil.ignore_patterns("models"))
    keys = [json.loads(line)["cell"] for line in (out / "rows.jsonl").read_text().splitlines()]
    (out / "grid.json").write_text(json.dumps({"cells": keys[:5]}))
    read = read_rows(out)
    assert (len(read.measured), len(read.failed), read.others) == (5, 0, 175)
    write_sweep_report(out, tmp_path / "page.html")
    assert "; 175 of another grid are left out." in (tmp_path / "page.html").read_text()
