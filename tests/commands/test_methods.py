"""The options that choose how dimensions are ranked."""

import json
import re

import pytest

from surgeon import (
    Recipe,
    make_plan,
    open_checkpoint,
    plan_from_small_patch,
    ranking_sample,
    read_record,
    read_texts,
    write_artifact,
    write_small_patch,
)
from surgeon.cli import run


def _complaint(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("\n".join(ranking_sample().lines[:6]))
    return path


@pytest.mark.parametrize("command", [["scan"], ["patch", "--dims", "3", "--dry-run"]])
def test_an_unknown_method_is_one_line_that_names_the_known_ones(command, minilm, capsys):
    assert run([command[0], str(minilm), *command[1:], "--method", "votes"]) == 2
    assert "there is layernorm, layernorm-count, activations, gradient, ablation" in _complaint(
        capsys
    )


@pytest.mark.parametrize(
    "options",
    [
        ["scan", "--data", "DATA"],
        ["scan", "--exhaustive"],
        ["scan", "--method", "ablation", "--sigma", "2"],
        ["scan", "--method", "activations", "--data", "nowhere.txt"],
        ["patch", "--dims", "3", "--data", "DATA", "--dry-run"],
        ["patch", "--remove-outliers", "2", "--data", "DATA", "--dry-run"],
        ["patch", "--remove-outliers", "1", "--min-damage", "1", "--dry-run"],
    ],
)
def test_an_option_that_nothing_would_use_is_refused(options, minilm, data, capsys):
    filled = [str(data) if option == "DATA" else option for option in options]
    assert run([filled[0], str(minilm), *filled[1:]]) == 2
    assert re.search("--(data|exhaustive|sigma|min-damage)", _complaint(capsys))


def test_weak_evidence_comes_with_the_command_that_settles_it(minilm, capsys):
    assert run(["scan", str(minilm)]) == 0
    assert f"surgeon scan {minilm} --method ablation measures" in capsys.readouterr().out
    patch = ["patch", str(minilm), "--remove-outliers", "2", "--dry-run"]
    assert run(patch) == 2
    assert "--remove-outliers 2 --method ablation" in _complaint(capsys)
    assert run([*patch, "--relax"]) == 0
    told = f"surgeon patch {minilm} --remove-outliers 2 --method ablation measures"
    assert told in capsys.readouterr().out


def test_an_onnx_file_is_not_told_to_run(minilm_patched, capsys):
    assert run(["scan", str(minilm_patched / "onnx" / "model.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "weak evidence." in shown
    assert "ablation" not in shown


def test_patch_takes_a_method_and_its_text_and_the_record_keeps_which(minilm, data, tmp_path):
    out = tmp_path / "out"
    command = ["patch", str(minilm), "--remove-outliers", "2", "--method", "activations"]
    assert run([*command, "--data", str(data), "--no-onnx", "-o", str(out)]) == 0
    record = read_record(out)
    assert record.dims == (99, 157)
    assert record.recipe["method"] == "activations"
    assert record.ranked_on == read_texts(data).used()
    assert "Glaciers" not in (out / "surgeon" / "record.json").read_text()


def test_a_table_ranks_by_its_text_column_alone(minilm, data, tmp_path, capsys):
    lines = read_texts(data).lines
    table = tmp_path / "d.csv"
    table.write_text("label,sentence,note\n" + "".join(f'yes,"{line}",n\n' for line in lines))
    command = ["scan", str(minilm), "--method", "activations", "--json", "--data"]

    def ranked(*options):
        assert run([*command, *options]) == 0
        return json.loads(capsys.readouterr().out)["dimensions"][:5]

    expected = ranked(str(data))
    assert ranked(str(table)) == expected
    assert ranked(str(table), "--text-column", "note") != expected
    assert run([*command[:2], "--text-column", "note"]) == 2
    assert "--text-column note: is a column of --data" in _complaint(capsys)


def test_a_small_patch_carries_what_ranked_to_the_artifact(minilm, data, tmp_path):
    checkpoint = open_checkpoint(minilm)
    recipe = Recipe(remove_outliers=2, method="activations")
    plan = make_plan(checkpoint, recipe, texts=read_texts(data))
    write_small_patch(plan, tmp_path / "edit.surgeon")
    again = plan_from_small_patch(tmp_path / "edit.surgeon", checkpoint)
    record = write_artifact(again, tmp_path / "out", onnx=False)
    assert record.ranked_on == read_texts(data).used()


def test_scan_json_has_the_flags_and_the_text_s_facts(minilm, data, capsys):
    command = ["scan", str(minilm), "--method", "activations", "--data", str(data), "--json"]
    assert run(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["method"] == "activations"
    assert document["dimensions"][0]["dim"] == 99
    assert "variance" in document["dimensions"][0]["flags"]
    assert document["measured"] is None
