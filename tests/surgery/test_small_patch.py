import json

import pytest
from safetensors.numpy import load_file, save_file

from surgeon import compare, open_checkpoint
from surgeon.cli import run


def _make(model, path, *options):
    arguments = ["patch", str(model), "--dims", "3,9", "--record-only", "-o", str(path)]
    assert run([*arguments, *options]) == 0
    return path


def test_applying_the_small_patch_gives_what_patching_gives(tiny, tmp_path, capsys):
    edit = _make(tiny("bert"), tmp_path / "edit.surgeon", "--mode", "scale", "--factor", "0.3")
    assert edit.stat().st_size < 8000
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert run(["apply", str(edit), str(tiny("bert")), "-o", str(out), "--no-onnx"]) == 0
    options = ["--dims", "3,9", "--mode", "scale", "--factor", "0.3", "--no-onnx"]
    assert run(["patch", str(tiny("bert")), *options, "-o", str(whole)]) == 0
    for name in ("model.safetensors", "README.md", "surgeon/excised.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert run(["verify", str(out)]) == 0
    assert run(["restore", str(out), "-o", str(tmp_path / "back")]) == 0
    assert compare(open_checkpoint(tmp_path / "back"), open_checkpoint(tiny("bert"))).identical


def test_another_base_is_refused(tiny, tmp_path, capsys):
    edit = _make(tiny("bert"), tmp_path / "edit.surgeon")
    assert run(["apply", str(edit), str(tiny("roberta")), "-o", str(tmp_path / "out")]) == 2
    assert "is not the base of edit.surgeon" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_file_is_refused_unless_forced(tiny, tmp_path, capsys):
    path = tmp_path / "edit.surgeon"
    path.write_text("mine")
    arguments = ["patch", str(tiny("bert")), "--dims", "3", "--record-only", "-o", str(path)]
    assert run(arguments) == 2
    assert path.read_text() == "mine"
    assert run([*arguments, "--force"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["edit.surgeon"]


def test_a_pickle_is_no_base(iglm_s, tmp_path, capsys):
    path = str(tmp_path / "edit.surgeon")
    assert run(["patch", str(iglm_s), "--dims", "3", "--record-only", "-o", path]) == 2
    assert "needs safetensors" in capsys.readouterr().err


def _rewrite(change):
    def damage(path):
        import struct

        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        contents = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["surgeon"])
        change(contents)
        save_file(load_file(path), path, metadata={"surgeon": json.dumps(contents)})

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"nonsense"),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: save_file(load_file(path), path),
        _rewrite(lambda c: c.update(schema="99")),
        _rewrite(lambda c: c.update(dims=[3, 1600])),
        _rewrite(lambda c: c.update(dims=[3, -1])),
        _rewrite(lambda c: c.update(dims=[3])),
        _rewrite(lambda c: c["edits"][0].update(axis=1)),
        _rewrite(lambda c: c["edits"][0].update(tensor="bert.pooler.dense.weight")),
        _rewrite(lambda c: c.pop("base")),
    ],
)
def test_a_damaged_small_patch_is_one_line_and_exit_code_2(tiny, tmp_path, capsys, damage):
    edit = _make(tiny("bert"), tmp_path / "edit.surgeon")
    damage(edit)
    capsys.readouterr()
    out = str(tmp_path / "out")
    assert run(["apply", str(edit), str(tiny("bert")), "-o", out, "--no-onnx"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
