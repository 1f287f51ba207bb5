"""The options that choose how dimensions are ranked."""

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


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("\n".join(ranking_sample().lines[:6]))
    return path


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("scan --method votes", "there is layernorm, layernorm-count, activations, gradient"),
        ("patch --method votes --dims 3 --dry-run", "there is layernorm, layernorm-count, activ"),
        ("scan --data DATA", "--data"),
        ("scan --exhaustive", "--exhaustive"),
        ("scan --method ablation --sigma 2", "--sigma"),
        ("scan --method activations --data nowhere.txt", "--data"),
        ("patch --dims 3 --data DATA --dry-run", "--data"),
        ("patch --remove-outliers 2 --data DATA --dry-run", "--data"),
        ("patch --remove-outliers 1 --min-damage 1 --dry-run", "--min-damage"),
        (
            "scan --method activations --text-column note",
            "--text-column note: is a column of --dat",
        ),
    ],
)
def test_a_method_or_an_option_that_nothing_would_use_is_refused(
    options, complaint, minilm, data, refused
):
    command, *words = options.replace("DATA", str(data)).split()
    refused(command, minilm, *words, says=complaint)


def test_weak_evidence_comes_with_the_command_that_settles_it(minilm, capsys, refused):
    assert run(["scan", str(minilm)]) == 0
    assert f"surgeon scan {minilm} --method ablation measures" in capsys.readouterr().out
    patch = ["patch", str(minilm), "--remove-outliers", "2", "--dry-run"]
    refused(*patch, says="--remove-outliers 2 --method ablation")
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
    recipe = Recipe(remove_outliers=2, method="activations")
    plan = make_plan(checkpoint, recipe, texts=read_texts(data))
    write_small_patch(plan, tmp_path / "edit.surgeon")
    again = plan_from_small_patch(tmp_path / "edit.surgeon", checkpoint)
    record = write_artifact(again, tmp_path / "out", onnx=False)
    assert record.ranked_on == read_texts(data).used()


def test_scan_json_has_the_flags_and_the_text_s_facts(minilm, data, json_of):
    document = json_of("scan", minilm, "--method", "activations", "--data", data)
    assert (document["method"], document["measured"]) == ("activations", None)
    assert document["dimensions"][0]["dim"] == 99
    assert "variance" in document["dimensions"][0]["flags"]
