import json
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file, save_file

from surgeon import open_checkpoint, read_zscores


def test_scan_takes_the_weight_file_too(minilm, json_of):
    file, folder = json_of("scan", minilm / "model.safetensors"), json_of("scan", minilm)
    assert file.pop("measure")["command"] != folder.pop("measure")["command"]
    assert file == folder


@pytest.fixture
def alone(tiny, tmp_path):
    """A weight file with nothing beside it."""
    (tmp_path / "downloads").mkdir()
    weights = tiny("bert") / "model.safetensors"
    return shutil.copy(weights, tmp_path / "downloads" / "mine.safetensors")


def test_scan_takes_a_weight_file_alone_and_says_how_it_knows_the_family(tiny, alone, json_of):
    known, told = json_of("scan", tiny("bert")), json_of("scan", alone)
    assert (told.pop("model"), told.pop("architecture")) == ("mine", "BERT-like (by tensor names)")
    assert known.pop("model") != "mine"
    assert known.pop("architecture") == "BERT"
    assert told.pop("measure") != known.pop("measure")
    assert told == known


@pytest.mark.parametrize(
    ("family", "arguments", "complaint"),
    [
        ("bert", ["patch", "--dims", "3", "-o", "out"], "has no config.json beside it"),
        ("bert", ["patch", "--dims", "3", "-o", "out", "--sites-pattern", "x"], "matches no "),
        ("unknown", ["scan"], "put config.json beside it, or give --sites-pattern"),
        ("unknown", ["patch", "--dims", "3", "-o", "out"], "names are those of no family"),
    ],
)
def test_what_a_weight_file_alone_does_not_tell_is_one_line_and_exit_code_2(
    alone, tmp_path, monkeypatch, refused, family, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    if family == "unknown":
        tensors = [*load_file(alone).items()][:2]
        save_file({name.replace("bert", "mamba"): tensor for name, tensor in tensors}, alone)
    before = sorted(tmp_path.rglob("*"))
    command, *options = arguments
    refused(command, alone, *options, says=complaint)
    assert sorted(tmp_path.rglob("*")) == before


def test_scan_s_table_names_the_layers_that_flag_a_dimension(minilm, done):
    table = done("scan", minilm, "--min-layers", "2").out
    (row,) = [line for line in table.splitlines() if "│ 267 │" in line]
    cells = ["267", "by weights, not measured", "2 of 6", "0, 1"]
    assert [cell.strip() for cell in row.split("│")[1:5]] == cells


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_scan_draws_a_picture_and_says_where_beside_the_one_document(
    minilm, tmp_path, done, suffix
):
    path = tmp_path / f"scan.{suffix}"
    captured = done("scan", minilm, "--plot", path, "--json")
    assert json.loads(captured.out)["outliers"] == []
    assert str(path) in "".join(captured.err.split("\n"))
    assert path.stat().st_size > 20_000


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_scan_writes_a_row_for_each_dimension_with_its_z_scores(
    suffix, tiny, tmp_path, json_of, done, refused
):
    path = tmp_path / f"table{suffix}"
    found = json_of("scan", tiny("bert"), "-o", path)
    read = pyarrow.csv.read_csv if suffix == ".csv" else pyarrow.parquet.read_table
    columns = dict(zip(read(path).column_names, read(path).columns, strict=True))
    table = {name: column.to_pylist() for name, column in columns.items()}
    if suffix == ".parquet":  # as where it was measured
        assert str(columns["damage"].type) == "double"
    zscores = read_zscores(open_checkpoint(tiny("bert")))
    assert table["dim"] == [d["dim"] for d in found["dimensions"]]
    np.testing.assert_allclose(table["gain_z_2"], zscores.gain[2][table["dim"]])
    np.testing.assert_allclose(table["bias_z_0"], zscores.bias[0][table["dim"]])
    np.testing.assert_allclose(found["zscores"]["bias"], zscores.bias, atol=1e-4)
    refused("scan", tiny("bert"), "-o", path, says="already exists")
    done("scan", tiny("bert"), "-o", path, "--force")
    assert not path.with_name(f"{path.name}.replaced").exists()
    path.write_bytes(b"mine")
    done("scan", tiny("bert"), "-o", path, "--force")
    assert path.with_name(f"{path.name}.replaced").read_bytes() == b"mine"


def test_scan_refuses_a_picture_that_cannot_be_before_it_reads_the_model(tmp_path, refused):
    model, picture = tmp_path / "no model", tmp_path / "missing" / "scan.png"
    refused("scan", model, "--plot", "scan.jpg", says=".png, .svg, .pdf or .html")
    refused("scan", model, "--plot", picture, says="there is no folder")


def test_a_dry_run_lists_every_value_and_writes_nothing(tiny, tmp_path, json_of, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = json_of("patch", tiny("bert"), "--random", "2", "--seed", "5", "--dry-run")
    assert len(document["edits"]) == 6
    assert all(len(edit["old"]) == 2 and edit["new"] == [0, 0] for edit in document["edits"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "tensors", "changed"),
    [
        (["--params", "gain"], 3, 3),
        (["--layers", "0-1"], 4, 4),
        (["--sites", "all"], 14, 14),
        (["--sites", "attention,output", "--params", "bias"], 6, 6),
        (["--mode", "scale", "--factor", "0.5"], 6, 6),
        (["--mode", "mean"], 6, 6),
    ],
)
def test_options_reach_the_plan(tiny, json_of, options, tensors, changed):
    document = json_of("patch", tiny("bert"), "--dims", "3", "--dry-run", *options)
    assert len(document["edits"]) == tensors
    assert document["parameters_changed"] == changed


def test_a_recipe_says_it_all_and_takes_no_option_beside_it(tiny, tmp_path, json_of, refused):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("dims: [3]\nmode: scale\nfactor: 0.5\n")
    document = json_of("patch", tiny("bert"), "--recipe", recipe, "--dry-run")
    assert document["dims"] == [3]
    assert document["edits"][0]["new"][0] == pytest.approx(document["edits"][0]["old"][0] / 2)
    refused("patch", tiny("bert"), "--recipe", recipe, "--params", "gain", says="--params")


def test_a_pickle_is_patched_to_safetensors_and_the_tool_says_so(iglm_s, tmp_path, done):
    told = done("patch", iglm_s, "--dims", "3", "--no-onnx", "-o", tmp_path / "out").out
    assert "pytorch_model.bin was a pickle" in " ".join(told.split())
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


def _rewrite(name, change):
    """Change a file of the model; one that comes to nothing is removed."""

    def act(folder):
        content = change((folder / name).read_bytes())
        (folder / name).write_bytes(content) if content else (folder / name).unlink()

    return act


_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_BROKEN = {
    "missing": (shutil.rmtree, "no such file or directory"),
    "no weights": (_rewrite(_WEIGHTS, lambda _: b""), "no weights in it"),
    "no config": (_rewrite(_CONFIG, lambda _: b""), "config.json"),
    "bad config": (_rewrite(_CONFIG, lambda _: b"{"), "not valid JSON"),
    "architecture": (_rewrite(_CONFIG, lambda _: b'{"model_type": "rwkv"}'), "'rwkv' is not an ar"),
    "truncated": (_rewrite(_WEIGHTS, lambda raw: raw[:-10]), "truncated"),
    "lying header": (_rewrite(_WEIGHTS, lambda raw: raw[:5] + b"\1" + raw[6:]), "claims 10995116"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_bad_input_is_one_line_and_exit_code_2(case, source, tmp_path, refused):
    break_it, complaint = _BROKEN[case]
    break_it(source)
    before = sorted(tmp_path.rglob("*"))
    refused("scan", source, says=complaint)
    refused("patch", source, "--dims", "3", "-o", tmp_path / "out", says=complaint)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--dims", "16"], "no dimension 16"),
        (["--dims", "three"], "--dims"),
        (["--dims", "3", "--random", "1"], "--remove-outliers N, --dims LIST or --random N"),
        ([], "exactly one way"),
        (["--remove-outliers", "2", "--method", "layernorm"], "--relax"),
        (["--remove-outliers", "2", "--sigma", "2"], "--sigma: --method ablation has no use for"),
        (["--dims", "3", "--mode", "cut"], "--mode"),
        (["--dims", "3", "--mode", "scale"], "--mode scale and --factor go together"),
        (["--dims", "3", "--layers", "9"], "no layer 9"),
        (["--dims", "3", "--sites", "final"], "no such norm"),
        (["--dims", "3", "--params", "beta"], "--params: there is gain, bias; found 'beta'"),
        (["--dims", "3,x"], "--dims '3,x': give numbers and ranges such as 0-5,11"),
        (["--remove-outliers", "0"], "--remove-outliers: give a number of 1 or more; found 0"),
        (["--dims", "x", "--recipe", "none"], "--dims"),
        (["--dims", ""], "an argument is empty"),
        (["--dims", "3", "--sigma", "nan"], "--sigma: give a finite number; found nan"),
        (["--dims", "3", "--min-damage", "inf"], "--min-damage: give a finite"),
        (["--dims", "3", "--mode", "scale", "--factor", "nan"], "--factor: give a finite"),
        (["--dims", "0-99999999999"], "99999999999 is beyond any model"),
        (["--dims", "0-9999999"], "more than 1,000,000 numbers"),
        (["--dims", "5-3"], "--dims '5-3': 5-3 ends below"),
        (["--dims", "3", "--method", "layernorm-count"], "--method: goes with --remove-outliers N"),
        (["--random", "3", "--relax"], "--relax: goes with --remove-outliers N only"),
        (["--dims", "3", "--seed", "1"], "--seed: goes with --random N only"),
        (["--dims", "3", "--no-onnx", "--dtype", "float16"], "--dtype float16: is about the ONNX"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(tiny, tmp_path, refused, options, complaint):
    line = refused("patch", tiny("bert"), *options, "-o", tmp_path / "out", says=complaint)
    assert "`" not in line  # which names a parameter of the library
    assert list(tmp_path.iterdir()) == []


def test_an_output_must_be_named_and_not_be_there(tiny, tmp_path, refused):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    for options, complaint in (
        ([], "-o DIR: name the directory to make"),
        (["--record-only"], "-o FILE: name the file to make"),
        (["-o", tmp_path / "there"], "already exists"),
        (["-o", tmp_path / "file" / "out"], "no directory"),
    ):
        refused("patch", tiny("bert"), "--dims", "3", *options, says=complaint)
    assert list((tmp_path / "there").iterdir()) == []
