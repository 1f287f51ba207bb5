"""The options that choose how dimensions are ranked."""

from importlib import metadata
from pathlib import Path

import pytest

import surgeon
from surgeon import open_checkpoint, ranking_sample, read_record, read_texts
from surgeon.figures.report import _damages, _summary
from surgeon.figures.scan import draw_ranking
from surgeon.ranking.ranking import BY_WEIGHTS


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("\n".join(ranking_sample().lines[:6]))
    return path


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("scan --method votes", "there is layernorm, layernorm-count, activations, gradient"),
        ("patch --method votes --dims 3 --dry-run", "there is ablation, activations"),
        ("scan --data DATA", "--data"),
        ("scan --device cpu", "--device: --method layernorm has no use for it"),
        ("scan --method ablation --device mps", "--device mps: PyTorch "),
        ("patch --remove-outliers 2 --device mps --dry-run", " has cpu here; use one of"),
        ("patch --dims 3 --device cpu --dry-run", "--device: goes with --remove-outliers N only"),
        ("scan --exhaustive", "--exhaustive"),
        ("scan --force", "--force: replaces a file"),
        ("scan --compare --top 3", "--top"),
        ("scan --method ablation --sigma 2", "--sigma"),
        ("scan --method activations --data nowhere.txt", "--data"),
        ("patch --dims 3 --data DATA --dry-run", "--data"),
        ("patch --remove-outliers 2 --method layernorm --data DATA --dry-run", "--data"),
        ("patch --remove-outliers 1 --sigma 2 --dry-run", "--sigma"),
        ("scan --method activations --text-column note", "--text-column note: is a column of"),
    ],
)
def test_a_method_or_an_option_that_nothing_would_use_is_refused(
    options, complaint, minilm, data, refused
):
    command, *words = options.replace("DATA", str(data)).split()
    refused(command, minilm, *words, says=complaint)


def test_weak_evidence_comes_with_the_command_that_settles_it(minilm, done, refused):
    assert f"surgeon scan {minilm} --method ablation measures" in done("scan", minilm).out
    patch = ["patch", minilm, "--remove-outliers", "2", "--method", "layernorm", "--dry-run"]
    refused(*patch, says="--remove-outliers 2 --method ablation")
    told = f"surgeon patch {minilm} --remove-outliers 2 --method ablation measures"
    assert told in done(*patch, "--relax").out


def test_what_relax_takes_that_is_no_outlier_is_said(minilm, tmp_path, done):
    out, says = tmp_path / "out", "; outliers among them: 267, 127"
    options = ["--remove-outliers", "3", "--method", "layernorm", "--min-layers", "2", "--relax"]
    told = done("patch", minilm, *options, "--no-onnx", "-o", out).out
    assert told.startswith(f"Chosen: 267, 127, 223, by layernorm ({BY_WEIGHTS}{says}).")
    assert f"{says}." in (out / "README.md").read_text()


def test_patch_measures_by_default_and_says_what_the_criterion_would_have_chosen(
    minilm, tmp_path, done
):
    out = tmp_path / "out"
    told = done("patch", minilm, "--remove-outliers", "2", "--no-onnx", "-o", out).out
    chosen, edited, _, following = told.splitlines()
    assert "at dimensions 99, 157 (output layernorm; zero in all layers), all other b" in edited
    assert following == f"Next: surgeon verify {out}"
    assert chosen == (
        "Chosen: 99, 157, by ablation (measured); by the paper's criterion, on the weights alone, "
        "0 of 384 are outliers, and 267, 127 come first."
    )
    record = read_record(out)
    first, second = record.choice.dimensions
    assert first.damage > second.added > record.choice.measured.control_range[1]
    report = " ".join(_summary(record))
    assert "The dimensions were chosen by ablation, measured: drift on at most" in report
    assert " of 120 texts of built-in ranking sentences" in report
    assert f"torch {metadata.version('torch')}, transformers " in report
    (damages,) = _damages(record)
    assert damages.count(f"{first.damage:+.4g} (") == 2  # alone, and beside none before it
    assert f"{second.added:+.4g} ({second.added_interval[0]:+.4g} to " in damages


def _without_torch(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)


def _without_memory(monkeypatch):
    monkeypatch.setattr("surgeon.ranking.torch_runner.memory_left", lambda: 1e6)


@pytest.mark.parametrize(
    ("model", "hinder", "reason"),
    [
        ("tiny", None, "no tokenizer in it that reads text"),
        ("minilm", _without_torch, "PyTorch, which runs the model, is not installed"),
        ("minilm", _without_memory, "take 0.1 GB in float32, and 0.0 GB of memory are free"),
        ("onnx", None, "of an ONNX file the weights alone are read"),
    ],
)
def test_where_nothing_can_be_measured_it_asks_how_to_choose(
    model, hinder, reason, minilm, tiny, minilm_patched, tmp_path, refused, monkeypatch, capsys
):
    onnx = minilm_patched / "onnx" / "model.onnx"
    models = {"minilm": minilm, "tiny": tiny("bert"), "onnx": onnx}
    if hinder:
        hinder(monkeypatch)
    capsys.readouterr()  # of what made the models
    options = ["--remove-outliers", "2", "-o", tmp_path / "out"]
    for says in (reason, "use --method layernorm, which reads only the weights, or name them with"):
        refused("patch", models[model], *options, says=says)
    assert not (tmp_path / "out").exists()


def test_whatever_names_outliers_by_weights_says_that_they_were_not_measured(
    minilm, tmp_path, done, json_of
):
    scan = ["scan", minilm, "--min-layers", "2"]
    command = f"surgeon scan {minilm} --method ablation"
    table = done(*scan, "--plot", tmp_path / "scan.svg").out
    assert f"Outliers: 267, 127 ({BY_WEIGHTS})" in table
    assert f"{command} measures what removing each does, in about" in table
    model = open_checkpoint(minilm)
    ranking = surgeon.rank_by_layernorm(model, min_layers=2)
    picture = draw_ranking(ranking, surgeon.read_zscores(model))
    assert picture.headline.endswith(f"(267, 127), {BY_WEIGHTS}")
    document = json_of(*scan)
    assert document["basis"] == BY_WEIGHTS
    assert document["measure"]["command"] == command
    assert 1 < document["measure"]["seconds"] < 60
    out = tmp_path / "out"
    options = ["--remove-outliers", "2", "--method", "layernorm", "--min-layers", "2"]
    told = done("patch", minilm, *options, "--no-onnx", "-o", out).out
    assert f"Chosen: 267, 127, by layernorm ({BY_WEIGHTS})" in told
    assert f"by layernorm: {BY_WEIGHTS}" in " ".join((out / "README.md").read_text().split())
    assert any(BY_WEIGHTS in line for line in _summary(read_record(out)))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert all(BY_WEIGHTS in line for line in readme.splitlines() if line.startswith("Outliers:"))


def test_an_onnx_file_is_not_told_to_run(minilm_patched, done):
    shown = done("scan", minilm_patched / "onnx" / "model.onnx").out
    assert "weak evidence." in shown
    assert "ablation" not in shown


def test_patch_takes_a_method_and_its_text_and_the_record_keeps_which(minilm, data, tmp_path, done):
    out = tmp_path / "out"
    options = ["--remove-outliers", "2", "--method", "activations", "--data", data]
    done("patch", minilm, *options, "--no-onnx", "-o", out)
    record = read_record(out)
    assert record.dims == (99, 157)
    assert record.recipe["method"] == "activations"
    assert record.ranked_on == read_texts(data).used()
    assert record.choice.basis == "by activations, not measured"
    assert [found.dim for found in record.choice.dimensions] == [99, 157]
    assert {"torch", "transformers"} <= record.versions.keys()
    assert "Glaciers" not in (out / "surgeon" / "record.json").read_text()


def test_a_table_ranks_by_its_text_column_alone(minilm, data, tmp_path, json_of):
    table = tmp_path / "d.csv"
    rows = (f'yes,"{line}",n\n' for line in read_texts(data).lines)
    table.write_text("label,sentence,note\n" + "".join(rows))

    def ranked(*options):
        return json_of("scan", minilm, "--method", "activations", "--data", *options)["dimensions"]

    expected = ranked(data)
    assert ranked(table) == expected
    assert ranked(table, "--text-column", "note") != expected


def test_a_small_patch_carries_what_ranked_to_the_artifact(minilm, data, tmp_path):
    checkpoint = open_checkpoint(minilm)
    recipe = surgeon.Recipe(remove_outliers=2, method="activations")
    plan = surgeon.make_plan(checkpoint, recipe, texts=read_texts(data))
    surgeon.write_small_patch(plan, tmp_path / "edit.surgeon")
    again = surgeon.plan_from_small_patch(tmp_path / "edit.surgeon", checkpoint)
    record = surgeon.write_artifact(again, tmp_path / "out", onnx=False)
    assert record.ranked_on == read_texts(data).used()


def test_scan_json_has_the_flags_and_the_text_s_facts(minilm, data, json_of):
    document = json_of("scan", minilm, "--method", "activations", "--data", data)
    assert (document["method"], document["measured"]) == ("activations", None)
    assert document["dimensions"][0]["dim"] == 99
    assert "variance" in document["dimensions"][0]["flags"]
