"""The report of an artifact: what it says, that it loads nothing, and that a browser draws it."""

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest
from pictures import assert_loads_nothing, browse

from surgeon import (
    evaluate,
    open_checkpoint,
    read_evaluation,
    read_evaluations,
    read_record,
    read_zscores,
    save_evaluation,
    verify,
    write_report,
)
from surgeon.cli import run
from surgeon.edit.restore import open_source
from surgeon.errors import CheckpointError, EvaluationError, OutputError
from surgeon.evaluation.result import Quantized
from surgeon.figures.report import _commands, _title
from surgeon.text import Texts, built_in_sample


@pytest.fixture(scope="module")
def evaluated(minilm_patched, tmp_path_factory):
    artifact = tmp_path_factory.mktemp("report") / "out"
    shutil.copytree(minilm_patched, artifact)
    lines = built_in_sample().lines[::8]
    texts = Texts("a few", lines, "\n".join(lines).encode())
    save_evaluation(evaluate(artifact, texts=texts, controls=5, dose=True), artifact)
    return artifact


@pytest.fixture(scope="module")
def report(evaluated, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(evaluated, path)
    return path


def test_an_evaluation_read_back_is_the_one_saved(evaluated):
    read = read_evaluation(evaluated)
    assert read is not None
    assert save_evaluation(read, evaluated).is_file()
    assert read_evaluation(evaluated) == read
    assert [dose.dims for dose in read.dose] == [(99,), (99, 157)]


def test_the_report_says_what_was_done_and_what_it_did(report, evaluated):
    text = report.read_text()
    assert "<b>degraded</b>" in text
    assert text.count("random removal</td>") == 5
    assert text.count("encoder.layer.") >= 12
    assert "24 of 22,713,216 parameters changed (zero)" in text
    assert "Note: with" not in text
    assert "The worst of 5 random removals, of " in text
    assert "@media (prefers-color-scheme: dark)" in text
    # The maps keep their width on a narrow screen; scores and doses fit it.
    assert text.count('<div class="chart wide">') == 1
    assert text.count('<div class="chart">') == 2
    assert text.count('<svg role="img" aria-label="') == 3  # what a screen reader says of each
    assert "<pre>surgeon patch model --dims 99,157 -o out</pre>" in text
    asked = "--task drift --seed 0 --controls 5 --data &#x27;a few&#x27; --dose"
    assert f"<pre>surgeon eval out {asked}</pre>" in text
    weights = (evaluated / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in text
    recorded = read_record(evaluated).files["model.safetensors"].after.blake3
    assert f"<td>{recorded[:16]}…, as recorded</td>" in text


def test_the_command_of_an_evaluation_asks_for_all_that_was_asked_for(evaluated):
    record, drift = read_record(evaluated), read_evaluation(evaluated)
    assert drift is not None
    asked = dataclasses.replace(
        drift, task="sts", metric="1 − Pearson", margin=0.05, until_certain=True, dose=()
    )
    asked = dataclasses.replace(asked, quantized=Quantized("int8", asked, None))
    assert _commands(record, asked)[1] == (
        "surgeon eval out --task sts --metric Pearson --margin 0.05 --seed 0 --controls 5 "
        "--data 'a few' --until-certain --quantize int8"
    )


def test_the_command_of_a_patch_names_the_commit_and_the_pattern_that_it_was_of(evaluated):
    record = dataclasses.replace(read_record(evaluated), revision="c0ffee", sites_pattern="a.*")
    patch, *_ = _commands(record, read_evaluation(evaluated))
    assert patch == (
        "surgeon patch model --revision c0ffee --sites-pattern 'a.*' --dims 99,157 -o out"
    )


def test_a_title_says_of_dimensions_that_were_scaled_that_they_are_there(evaluated):
    record = read_record(evaluated)
    scaled = dataclasses.replace(record, recipe={**record.recipe, "mode": "scale", "factor": 2.0})
    assert _title(record) == "model without 99, 157"
    assert _title(scaled) == "model with 99, 157 scaled"


def test_the_newest_evaluation_of_each_task_and_data_set_is_kept_and_reported(evaluated, tmp_path):
    artifact = shutil.copytree(evaluated, tmp_path / "out")
    first = read_evaluation(artifact)
    again = dataclasses.replace(first, seed=7)
    hostile = "<script>\x1b[31m"
    other = dataclasses.replace(first, task="glue/mnli", verdict="intact", metric=hostile)
    for evaluation in (again, other):
        save_evaluation(evaluation, artifact)
    assert read_evaluation(artifact) == other
    assert read_evaluations(artifact) == (again, other)
    assert verify(artifact).passed
    write_report(artifact, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "\x1b" not in page
    table = page.partition("All that was measured")[2].partition("</table>")[0]
    assert table.count("<tr>") == 3
    assert "<td>glue/mnli</td>" in table
    # An artifact of an earlier version has only the last.
    shutil.rmtree(artifact / "surgeon" / "evaluations")
    assert read_evaluations(artifact) == (other,)


def test_the_report_loads_nothing_runs_nothing_and_is_small(report):
    text = report.read_text()
    assert "default-src 'none'" in text
    assert_loads_nothing(text)
    assert "<script" not in text
    assert len(text) < 1_000_000


def test_the_source_is_read_with_the_excised_values_in_place(minilm, minilm_patched):
    source, original = open_source(minilm_patched), open_checkpoint(minilm)
    for name in original.tensors:
        if "LayerNorm" in name:
            np.testing.assert_array_equal(source.read(name), original.read(name))
    np.testing.assert_array_equal(read_zscores(source).gain, read_zscores(original).gain)


@pytest.mark.parametrize(("preferred", "ground"), [(1, 0xFFFFFF), (0, 0x141414)])
def test_a_browser_draws_every_chart_light_or_dark(report, tmp_path, preferred, ground):
    from matplotlib.image import imread

    assert report.read_text().count("<svg") == 3
    picture, scheme = tmp_path / "page.png", f"--blink-settings=preferredColorScheme={preferred}"
    browse(report, "--window-size=1300,2600", scheme, f"--screenshot={picture}")
    pixels = np.rint(imread(picture)[..., :3] * 255).astype(int) @ (1 << 16, 1 << 8, 1)
    colours, counts = np.unique(pixels, return_counts=True)
    assert pixels.shape[0] == 2600
    assert len(colours) > 200  # text, maps and bands, not a blank
    assert (pixels[:, :5] == ground).all()
    assert counts[colours == ground] > 0.7 * pixels.size  # charts have the page's ground too


def test_what_cannot_be_reported_is_told_in_one_line(
    minilm_patched, evaluated, tiny_patched, tmp_path, capsys
):
    with pytest.raises(EvaluationError, match="was not evaluated yet"):
        write_report(minilm_patched, tmp_path / "a.html")
    with pytest.raises(EvaluationError, match="not evaluated yet; patch without `onnx=False`"):
        write_report(tiny_patched, tmp_path / "a.html")
    with pytest.raises(CheckpointError, match="no artifact"):
        write_report(tmp_path, tmp_path / "a.html")
    (tmp_path / "there.html").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        write_report(evaluated, tmp_path / "there.html")
    with pytest.raises(OutputError, match="none; make it first"):
        write_report(evaluated, tmp_path / "none" / "a.html")
    shutil.copytree(evaluated, tmp_path / "damaged")
    (tmp_path / "damaged" / "surgeon" / "eval.json").write_text('{"task": 1}')
    assert run(["report", str(tmp_path / "damaged"), "-o", str(tmp_path / "b.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "there.html").read_text() == "mine"
    assert not (tmp_path / "b.html").exists()
