import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from surgeon.cli import run


@pytest.fixture
def json_of(capsys):
    """Run a command and parse the one JSON document on its standard output."""

    def parse(*arguments):
        assert run([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return parse


def test_scan_json_holds_what_scripts_lean_on(minilm, json_of):
    document = json_of("scan", minilm)
    assert document["architecture"] == "BERT"
    assert (document["layers"], document["hidden_size"]) == (6, 384)
    assert document["method"] == "layernorm"
    assert document["outliers"] == []
    assert len(document["dimensions"]) == 384
    first = document["dimensions"][0]
    assert (first["dim"], first["layers"]) == (267, [0, 1])
    scores = [dimension["score"] for dimension in document["dimensions"]]
    assert scores == sorted(scores, reverse=True)


def test_scan_takes_the_weight_file_too(minilm, json_of):
    assert json_of("scan", minilm / "model.safetensors") == json_of("scan", minilm)


@pytest.fixture
def alone(tiny, tmp_path):
    """A weight file with nothing beside it."""
    (tmp_path / "downloads").mkdir()
    return shutil.copy(
        tiny("bert") / "model.safetensors", tmp_path / "downloads" / "mine.safetensors"
    )


def test_scan_takes_a_weight_file_alone_and_says_how_it_knows_the_family(tiny, alone, json_of):
    known, told = json_of("scan", tiny("bert")), json_of("scan", alone)
    assert (told.pop("model"), told.pop("architecture")) == ("mine", "BERT-like (by tensor names)")
    assert known.pop("model") != "mine"
    assert known.pop("architecture") == "BERT"
    assert told == known


def test_a_weight_file_alone_goes_the_whole_way(alone, tmp_path, monkeypatch, json_of):
    monkeypatch.chdir(alone.parent)
    original = alone.read_bytes()
    patched = json_of("patch", alone.name, "--dims", "3,9", "--no-onnx", "-o", "out")
    assert (patched["parameters_changed"], patched["model"]) == (12, "mine")
    assert json_of("verify", "out")["passed"] is True
    assert json_of("diff", alone.name, "out")["scalars_changed"] == 12
    assert json_of("scan", "out")["layers"] == 3
    json_of("restore", "out", "-o", "back")
    assert [path.name for path in (alone.parent / "back").iterdir()] == ["mine.safetensors"]
    assert (alone.parent / "back" / "mine.safetensors").read_bytes() == original


def test_a_weight_file_alone_is_patched_by_a_pattern(alone, json_of):
    pattern = r".*\.attention\.output\.LayerNorm"
    document = json_of("patch", alone, "--dims", "3", "--dry-run", "--sites-pattern", pattern)
    assert len(document["edits"]) == 6
    assert all("attention" in edit["tensor"] for edit in document["edits"])


@pytest.mark.parametrize(
    ("family", "arguments", "complaint"),
    [
        ("bert", ["patch", "--dims", "3", "-o", "out"], "has no config.json beside it"),
        (
            "bert",
            ["patch", "--dims", "3", "-o", "out", "--sites-pattern", "x"],
            "matches no module",
        ),
        ("unknown", ["scan"], "put config.json beside it, or give --sites-pattern"),
        ("unknown", ["patch", "--dims", "3", "-o", "out"], "names are those of no family"),
    ],
)
def test_what_a_weight_file_alone_does_not_tell_is_one_line_and_exit_code_2(
    alone, tmp_path, monkeypatch, capsys, family, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    if family == "unknown":
        tensors = load_file(alone)
        save_file(
            {name.replace("bert", "mamba"): tensors[name] for name in list(tensors)[:2]}, alone
        )
    before = sorted(tmp_path.rglob("*"))
    command, *options = arguments
    assert run([command, str(alone), *options]) == 2
    _is_one_line(capsys, complaint)
    assert sorted(tmp_path.rglob("*")) == before


def test_scan_s_table_names_the_layers_that_flag_a_dimension(minilm, capsys):
    assert run(["scan", str(minilm), "--min-layers", "2"]) == 0
    table = capsys.readouterr().out
    (row,) = [line for line in table.splitlines() if "│ 267 │" in line]
    assert [cell.strip() for cell in row.split("│")[1:5]] == ["267", "yes", "2 of 6", "0, 1"]
    assert "Outliers: 267, 127" in table


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_scan_draws_a_picture_and_says_where_beside_the_one_document(
    minilm, tmp_path, capsys, suffix
):
    path = tmp_path / f"scan.{suffix}"
    assert run(["scan", str(minilm), "--plot", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["outliers"] == []
    assert str(path) in "".join(captured.err.split("\n"))
    assert path.stat().st_size > 20_000


def test_scan_refuses_a_picture_that_cannot_be_before_it_reads_the_model(tmp_path, capsys):
    assert run(["scan", str(tmp_path / "no model"), "--plot", "scan.jpg"]) == 2
    assert ".png, .svg, .pdf or .html" in capsys.readouterr().err
    assert run(["scan", str(tmp_path), "--plot", str(tmp_path / "missing" / "scan.png")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_patch_json_holds_what_scripts_lean_on(tiny, tmp_path, json_of):
    document = json_of("patch", tiny("bert"), "--dims", "3,9", "--no-onnx", "-o", tmp_path / "out")
    assert document["output"] == str(tmp_path / "out")
    assert document["dims"] == [3, 9]
    assert document["parameters_changed"] == 12
    assert document["files"].keys() >= {"model.safetensors", "config.json"}


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


def test_a_recipe_says_it_all_and_takes_no_option_beside_it(tiny, tmp_path, json_of, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("dims: [3]\nmode: scale\nfactor: 0.5\n")
    document = json_of("patch", tiny("bert"), "--recipe", recipe, "--dry-run")
    assert document["dims"] == [3]
    assert document["edits"][0]["new"][0] == pytest.approx(document["edits"][0]["old"][0] / 2)
    assert run(["patch", str(tiny("bert")), "--recipe", str(recipe), "--params", "gain"]) == 2
    assert "--params" in capsys.readouterr().err


def test_a_pickle_is_patched_to_safetensors_and_the_tool_says_so(iglm_s, tmp_path, capsys):
    arguments = ["patch", str(iglm_s), "--dims", "3", "--no-onnx", "-o", str(tmp_path / "out")]
    assert run(arguments) == 0
    assert "pytorch_model.bin was a pickle" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


def test_restore_undoes_a_patch(tiny, tmp_path, capsys):
    out, back = str(tmp_path / "out"), str(tmp_path / "back")
    assert run(["patch", str(tiny("bert")), "--dims", "3", "--no-onnx", "-o", out]) == 0
    assert run(["restore", out, "-o", back]) == 0
    for path in tiny("bert").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_brackets_in_a_name_are_no_markup(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = load_file(tiny("bert") / "model.safetensors")
    renamed = {name.replace("bert.", "[red]."): tensor for name, tensor in tensors.items()}
    shutil.copytree(tiny("bert"), "[red]")
    save_file(renamed, "[red]/model.safetensors")
    shutil.copy("[red]/model.safetensors", "[red]/[red].safetensors")
    for arguments in (
        ["scan", "[red]"],
        ["patch", "[red]", "--dims", "3", "--dry-run"],
        ["patch", "[red]", "--dims", "3", "--record-only", "-o", "edit"],
        ["patch", "[red]", "--dims", "3", "--no-onnx", "-o", "out"],
        ["verify", "out"],
        ["restore", "out", "-o", "back"],
    ):
        capsys.readouterr()
        assert run(arguments) == 0
        printed = capsys.readouterr().out
        assert "[red]" in printed, arguments
        assert "[red].encoder.layer.0" in printed or "--dry-run" not in arguments
        assert ": [red].safetensors" in printed or arguments[0] != "restore"


def _broken(folder, break_it):
    def make(tmp_path, tiny):
        shutil.copytree(tiny("bert"), tmp_path / folder)
        break_it(tmp_path / folder)
        return tmp_path / folder

    return make


def _lying_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])


def _truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


_BROKEN = {
    "missing": (lambda tmp_path, _tiny: tmp_path / "nowhere", "no such file or directory"),
    "no weights": (_broken("a", lambda f: (f / "model.safetensors").unlink()), "no weights in it"),
    "no config": (_broken("a", lambda f: (f / "config.json").unlink()), "config.json"),
    "bad config": (_broken("a", lambda f: (f / "config.json").write_text("{")), "not valid JSON"),
    "architecture": (
        _broken("a", lambda f: (f / "config.json").write_text('{"model_type": "mamba"}')),
        "'mamba' is not an architecture",
    ),
    "truncated": (_broken("a", _truncate), "truncated"),
    "lying header": (_broken("a", _lying_header), "claims 1099511627776 bytes"),
}


@pytest.mark.parametrize("command", ["scan", "patch"])
@pytest.mark.parametrize("case", _BROKEN)
def test_bad_input_is_one_line_and_exit_code_2(case, command, tiny, tmp_path, capsys):
    make, complaint = _BROKEN[case]
    model = make(tmp_path, tiny)
    before = sorted(tmp_path.rglob("*"))
    options = ["--dims", "3", "-o", str(tmp_path / "out")] if command == "patch" else []
    assert run([command, str(model), *options]) == 2
    _is_one_line(capsys, complaint)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--dims", "16"], "no dimension 16"),
        (["--dims", "three"], "--dims"),
        (["--dims", "3", "--random", "1"], "exactly one way"),
        ([], "exactly one way"),
        (["--remove-outliers", "2"], "--relax"),
        (["--dims", "3", "--mode", "cut"], "--mode"),
        (["--dims", "3", "--mode", "scale"], "--factor"),
        (["--dims", "3", "--layers", "9"], "no layer 9"),
        (["--dims", "3", "--sites", "final"], "no such norm"),
        (["--dims", "3", "--params", "beta"], "--params"),
        (["--dims", "x", "--recipe", "none"], "--dims"),
        (["--dims", ""], "--dims '': give numbers"),
        (["--dims", "3", "--layers", ""], "--layers '': give numbers"),
        (["--dims", "3", "--sigma", "nan"], "--sigma: give a finite number; found nan"),
        (["--dims", "3", "--min-damage", "inf"], "--min-damage: give a finite"),
        (["--dims", "3", "--mode", "scale", "--factor", "nan"], "--factor: give a finite"),
        (["--dims", "0-99999999999"], "99999999999 is beyond any model"),
        (["--dims", "0-9999999"], "more than 1,000,000 numbers"),
        (["--dims", "5-3"], "--dims '5-3': 5-3 ends below"),
        (["--dims", "3", "--method", "layernorm-count"], "--method: goes with --remove-outliers N"),
        (["--random", "3", "--relax"], "--relax: goes with --remove-outliers N alone"),
        (["--dims", "3", "--seed", "1"], "--seed: goes with --random N alone"),
        (["--dims", "3", "--no-onnx", "--dtype", "float16"], "--dtype float16: is that of the"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(tiny, tmp_path, capsys, options, complaint):
    assert run(["patch", str(tiny("bert")), *options, "-o", str(tmp_path / "out")]) == 2
    _is_one_line(capsys, complaint)
    assert list(tmp_path.iterdir()) == []


def test_patch_without_an_output_asks_for_one(tiny, capsys):
    assert run(["patch", str(tiny("bert")), "--dims", "3"]) == 2
    _is_one_line(capsys, "-o DIR: name the directory to make")
    assert run(["patch", str(tiny("bert")), "--dims", "3", "--record-only"]) == 2
    _is_one_line(capsys, "-o FILE: name the file to make")


def test_an_existing_output_is_one_line_and_exit_code_2(tiny, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    arguments = ["patch", str(tiny("bert")), "--dims", "3", "-o", str(tmp_path / "out")]
    assert run(arguments) == 2
    _is_one_line(capsys, "already exists")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_below_a_file_is_refused(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["patch", str(tiny("bert")), "--dims", "3", "-o", str(tmp_path / "file" / "out")]
    assert run(arguments) == 2
    _is_one_line(capsys, "no directory")


def _is_one_line(capsys, complaint):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert complaint in captured.err
    assert "Traceback" not in captured.err
