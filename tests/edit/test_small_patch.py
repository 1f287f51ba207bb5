import json

import numpy as np
import pytest
from artifacts import assert_undone, edit_json, files_of, flip_bit
from blake3 import blake3
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from surgeon import open_checkpoint, read_record
from surgeon.cli import run
from surgeon.edit import small_patch

_SMALL = ("--dims", "3,9", "--record-only", "-o")


def _make(model, path, *options):
    assert run(["patch", str(model), *_SMALL, str(path), *options]) == 0
    return path


def test_applying_the_small_patch_gives_what_patching_gives(tiny, tmp_path, done):
    out, whole, scale = tmp_path / "out", tmp_path / "whole", ["--mode", "scale", "--factor", "0.3"]
    edit = _make(tiny("bert"), tmp_path / "edit.surgeon", *scale)
    assert edit.stat().st_size < 8000
    done("apply", edit, tiny("bert"), "-o", out, "--no-onnx")
    done("patch", tiny("bert"), "--dims", "3,9", *scale, "-o", whole, "--no-onnx")
    for name in ("model.safetensors", "README.md", "surgeon/excised.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert_undone(out, tiny("bert"))


@pytest.fixture
def edit(tiny, tmp_path):
    """A small patch of the tiny BERT without dims 3 and 9."""
    return _make(tiny("bert"), tmp_path / "edit.surgeon")


@pytest.fixture
def refused_edit(tiny, edit, tmp_path, refused):
    """Apply the small patch, which must be refused in a line that says this; return the line."""

    def check(*, model="bert", says=""):
        line = refused("apply", edit, tiny(model), "-o", tmp_path / "out", "--no-onnx", says=says)
        assert not (tmp_path / "out").exists()
        return line

    return check


def test_another_base_is_refused_and_a_patch_that_knows_none_fits_none(
    tiny, edit, refused_edit, monkeypatch
):
    refused_edit(model="roberta", says="is not the base of edit.surgeon")
    edit.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(small_patch, "_states", lambda *_: {})
        _make(tiny("bert"), edit)
    refused_edit(says="which has no model.safetensors")


def test_an_existing_file_is_refused_unless_forced(tiny, tmp_path, refused, done):
    path = tmp_path / "edit.surgeon"
    path.write_text("mine")
    refused("patch", tiny("bert"), *_SMALL, path)
    assert path.read_text() == "mine"
    for _ in range(2):  # the second replaces the small patch that the first made
        done("patch", tiny("bert"), *_SMALL, path, "--force")
        assert (tmp_path / "edit.surgeon.replaced").read_text() == "mine"
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "edit.surgeon", "deeper/edit.surgeon", "link/edit", ""],
)
def test_the_source_and_its_folder_take_no_small_patch(source, refused, name):
    (source / "link").symlink_to(source)
    before = files_of(source)
    refused("patch", source, *_SMALL, source / name, "--force")
    assert files_of(source) == before


def test_weights_that_the_source_links_to_and_a_file_alone_are_not_overwritten(
    source, tmp_path, refused
):
    weights = (source / "model.safetensors").rename(tmp_path / "mine.safetensors")
    (source / "model.safetensors").symlink_to(weights)
    (tmp_path / "edit").symlink_to(weights)
    before = weights.read_bytes()
    for output in (weights, tmp_path / "edit"):
        says = "is the source or inside it"
        refused("patch", source, *_SMALL, output, "--force", says=says)
    refused("patch", weights, *_SMALL, weights, "--force")
    assert weights.read_bytes() == before
    _make(weights, tmp_path / "edit.surgeon", "--force")


def test_the_folders_of_a_small_patch_are_made(tiny, tmp_path):
    _make(tiny("bert"), tmp_path / "new" / "folder" / "edit.surgeon")
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["edit.surgeon"]


def test_a_pattern_s_edit_is_applied_and_its_artifact_knows_the_pattern(source, tmp_path, done):
    edit_json(source / "config.json", model_type="unheard-of")
    out, whole, pattern = tmp_path / "out", tmp_path / "whole", r".*\d\.output\.LayerNorm"
    edit = _make(source, tmp_path / "edit.surgeon", "--sites-pattern", pattern)
    done("apply", edit, source, "-o", out, "--no-onnx")
    done("patch", source, "--dims", "3,9", "--sites-pattern", pattern, "-o", whole, "--no-onnx")
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert read_record(out).sites_pattern == pattern
    for artifact in (out, whole):
        assert open_checkpoint(artifact).layers == 3
        done("scan", artifact)


def test_a_pickle_is_no_base(iglm_s, tmp_path, refused):
    refused("patch", iglm_s, *_SMALL, tmp_path / "edit.surgeon", says="needs safetensors")


def _save(path, contents, values):
    """Write a file whose hash is right, so that only what else is wrong with it shows."""
    hasher = blake3(contents.encode())
    for name in dict.fromkeys(edit["tensor"] for edit in json.loads(contents)["edits"]):
        hasher.update(values[name].tobytes() if name in values else b"")
    save_file(values, path, metadata={"surgeon": contents, "blake3": hasher.hexdigest()})


def _as_it_is(_):
    """Change nothing."""


def _rewrite(change=_as_it_is, forge=_as_it_is):
    def damage(path):
        with safe_open(path, "numpy") as file:
            contents = json.loads(file.metadata()["surgeon"])
        values = load_file(path)
        change(contents)
        forge(values)
        _save(path, json.dumps(contents), values)

    return damage


def _flip(find):
    def damage(path):
        flip_bit(path, find(path.read_bytes()))
        with safe_open(path, "numpy") as file:  # the library does not mind
            assert file.metadata()["surgeon"]

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.write_bytes(b"nonsense"), "give the file that surgeon patch --record-"),
        (lambda path: (path.unlink(), path.mkdir()), "give the file that surgeon patch --record-"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "or a damaged one"),
        (lambda path: save_file(load_file(path), path), ""),
        (_flip(lambda _: -1), "edit.surgeon: damaged"),
        (_flip(lambda content: content.index(b'dims\\": [3') + 9), "edit.surgeon: damaged"),
        (_rewrite(lambda c: c.update(schema="99")), ""),
        (_rewrite(lambda c: c.update(dims=[3, 1600])), ""),
        (_rewrite(lambda c: c.update(dims=[3, -1])), ""),
        (_rewrite(lambda c: c.update(dims=[3])), ""),
        (_rewrite(lambda c: c["edits"][0].update(axis=1)), ""),
        (_rewrite(lambda c: c["edits"][0].update(tensor="bert.pooler.dense.weight")), ""),
        (_rewrite(lambda c: c.pop("base")), ""),
        (_rewrite(lambda c: c["base"]["model.safetensors"].update(blake3="0" * 64)), ""),
    ],
)
def test_a_damaged_small_patch_is_one_line_and_exit_code_2(edit, refused_edit, damage, complaint):
    damage(edit)
    refused_edit(says=complaint)


_GAIN = "bert.encoder.layer.0.output.LayerNorm.weight"
_EMBEDDING = "bert.embeddings.word_embeddings.weight"


def _embed(contents):
    contents["edits"].append({**contents["edits"][0], "tensor": _EMBEDDING})


def _attend(name):
    return name.replace(".output.", ".attention.output.")


def _attend_all(contents):
    for edit in contents["edits"]:
        edit["tensor"] = _attend(edit["tensor"])


@pytest.mark.parametrize(
    "forge",
    [
        _rewrite(forge=lambda v: v.update({_GAIN: v[_GAIN] * np.float32(np.nan)})),
        _rewrite(forge=lambda v: v.update({_GAIN: -v[_GAIN]})),  # -0 in place of 0
        _rewrite(forge=lambda v: v.update({_GAIN: v[_GAIN].astype(np.float16)})),
        _rewrite(forge=lambda v: v.update({_GAIN: v[_GAIN].reshape(2, 1)})),
        _rewrite(forge=lambda v: v.update({"more": v[_GAIN]})),
        _rewrite(forge=lambda v: v.pop(_GAIN)),
        _rewrite(_embed, lambda v: v.update({_EMBEDDING: np.zeros((2, 16), "f4")})),
        _rewrite(_attend_all, lambda v: [v.update({_attend(k): v.pop(k)}) for k in [*v]]),
        _rewrite(lambda c: c["recipe"].update(mode="mean")),
        _rewrite(lambda c: c["recipe"].update(mode="scale", factor=0.5)),
        _rewrite(lambda c: c["recipe"].update(params=["gain"])),
        _rewrite(lambda c: c["recipe"].update(layers=[0])),
        _rewrite(lambda c: c["recipe"].update(sites=["attention"])),
        _rewrite(lambda c: c["recipe"].update(dims=[3, 8])),
        _rewrite(lambda c: c["recipe"].update(dims=None, remove_outliers=3)),
        _rewrite(lambda c: c.update(dims=[3, 8])),
        _rewrite(lambda c: c.update(dims=[9, 3])),
        _rewrite(lambda c: c.update(dims=[3, 3]) or c["recipe"].update(dims=None, random=2)),
        _rewrite(lambda c: c.update(dims=[3, 16]) or c["recipe"].update(dims=None, random=2)),
        _rewrite(lambda c: c["edits"].pop()),
        _rewrite(lambda c: c["edits"].append(c["edits"][0])),
        _rewrite(lambda c: c["edits"].reverse()),
        _rewrite(lambda c: c["edits"][0].update(param="bias")),
        _rewrite(lambda c: c["edits"][0].update(offset=1.0)),
    ],
)
def test_an_edit_that_its_recipe_does_not_say_is_refused(edit, refused_edit, forge):
    """Its hashes are all right, as a forger's would be: what is performed is what is said."""
    forge(edit)
    assert refused_edit().startswith(f"surgeon: {edit}: its ")


def test_names_in_a_small_patch_are_those_of_the_base(tiny, edit, tmp_path, done):
    """Role, kind, layer and stack are resolved anew: text of a file is not taken for them."""
    evil = "<img src=x>"
    _rewrite(lambda c: [e.update(role=evil, kind=evil, layer=99) for e in c["edits"]])(edit)
    out = tmp_path / "out"
    done("apply", edit, tiny("bert"), "-o", out, "--no-onnx")
    assert evil not in (out / "README.md").read_text() + (out / "surgeon/record.json").read_text()
    assert {(e.role, e.kind) for e in read_record(out).edits} == {("output", "layernorm")}
