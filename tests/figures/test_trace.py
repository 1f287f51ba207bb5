import numpy as np
import pytest
from pictures import assert_legible, on_paper, texts_of
from training_runs import HIDDEN, make_template, write_pretraining, write_run

from surgeon import plot_trace, trace_training
from surgeon.figures import chart
from surgeon.figures.trace import draw_trace


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory):
    return write_pretraining(tmp_path_factory.mktemp("pretraining") / "run")


@pytest.mark.parametrize("sigma", [3.0, 2.0, 1.2, 0.9, 9.0])
def test_no_text_of_a_trace_lies_on_another_or_is_cut_off(pretraining, sigma):
    trace = trace_training([pretraining], sigma=sigma)
    if sigma == 9:
        assert not trace.outliers
    assert_legible(on_paper(draw_trace(trace)), least=20)


def test_many_steps_and_neighbouring_departures_stay_legible(tmp_path):
    template = make_template(tmp_path / "template")
    dims = [3, 7, 11, 19]
    outs = {143_000 - 1000 * back: dims[back:] for back in range(4)}
    outs |= {1000 * step: [] for step in range(8)}
    write_run(template, tmp_path / "run", outs)
    trace = trace_training([tmp_path / "run"], sigma=1.5)
    assert set(trace.outliers) == set(dims)
    figure = on_paper(draw_trace(trace))
    assert_legible(figure, least=25)
    written = [text.get_text() for text in texts_of(figure)]
    assert {"step 140,000", "step 141,000", "step 142,000", "step 143,000"} <= set(written)
    assert [written.count(str(dim)) for dim in dims] == [3] * 4  # at the end of each line


def test_a_line_crosses_sigma_where_its_dimension_left(pretraining):
    trace = trace_training([pretraining])
    assert trace.outliers == (36,)
    *_, (distance,) = draw_trace(trace).rows
    reach = distance.lines[-1].ys
    left = trace.steps.index(trace.trajectories[0].left_at)
    assert distance.threshold.value == 3
    assert reach[left - 1] <= 3 < reach[left]
    assert min(reach[left:]) > 3


def test_the_page_has_the_same_series_as_the_paper(pretraining):
    trace = trace_training([pretraining])
    drawn = on_paper(draw_trace(trace)).axes[1:]  # below the strip of names
    lines = [one for one in chart.draw(draw_trace(trace)).data if one.name.startswith("dim 36")]
    for line, axes in zip(lines, drawn, strict=True):
        np.testing.assert_array_equal(line.y, axes.lines[-2].get_ydata())


def test_candidates_are_drawn_quietly_and_the_words_say_that_they_are_none(pretraining):
    trace = trace_training([pretraining], sigma=9)
    drawn = draw_trace(trace)
    assert "no outlier dimension at step 4,000" in drawn.headline
    assert "none of them an outlier" in drawn.words[-1]
    for (panel,) in drawn.rows:
        assert len({line.colour for line in panel.lines}) == 1
        assert not panel.marks


def test_where_every_dimension_is_an_outlier_there_is_no_band(tmp_path, pretraining):
    trace = trace_training([pretraining], sigma=1e-6, min_layers=1)
    assert len(trace.outliers) > HIDDEN
    assert trace.bulk is None
    for name in ("a.png", "a.html"):
        plot_trace(trace, tmp_path / name)


def test_a_plot_returns_its_figure_with_and_without_a_file(tmp_path, pretraining):
    trace = trace_training([pretraining])
    for path in (None, tmp_path / "a.svg"):
        figure = plot_trace(trace, path)
        assert len(figure.axes) >= 3
        assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    assert plot_trace(trace, tmp_path / "a.html").data


def test_the_same_trace_gives_the_same_bytes(tmp_path, pretraining):
    trace = trace_training([pretraining])
    for suffix in ("svg", "html"):
        plot_trace(trace, tmp_path / f"a.{suffix}")
        plot_trace(trace, tmp_path / f"b.{suffix}")
        one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert one == other
