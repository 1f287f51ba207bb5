"""A weight file without a configuration, in a folder that may be anybody's."""

import shutil

import pytest
from artifacts import differing_offsets, edit_record, files_of, patch, plan_of, planned_offsets

from surgeon import SurgeonError, compare, open_checkpoint, restore, verify
from surgeon.errors import CheckpointError, ExportError, OutputError, SelectionError

_OWN = {"surgeon/record.json", "surgeon/excised.safetensors", "README.md"}
_BERT_S_NORMS = r"bert\.encoder\.layer\.\d+\.output\.LayerNorm"


@pytest.fixture(params=["mine.safetensors", "model.safetensors"])
def alone(request, tiny, tmp_path):
    """A weight file among files that are none of its model's."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "README.md").write_text("---\nlicense: another-model-s\n---\n")
    (downloads / "taxes.pdf").write_text("private")
    (downloads / "holiday").mkdir()
    (downloads / "holiday" / "beach.jpg").write_text("private")
    shutil.copy(tiny("gpt2") / "model.safetensors", downloads / "other.safetensors")
    return shutil.copy(tiny("bert") / "model.safetensors", downloads / request.param)


def test_the_file_alone_is_patched_and_nothing_beside_it_is_taken(alone, tmp_path):
    before = files_of(alone.parent)
    record = patch(alone, tmp_path / "out")
    artifact = files_of(tmp_path / "out")
    assert artifact.keys() == {alone.name} | _OWN
    planned = planned_offsets(plan_of(alone))[alone.name]
    assert len(planned) == 12 * 4
    assert differing_offsets(alone.read_bytes(), artifact[alone.name]) <= planned
    assert files_of(alone.parent) == before
    assert record.left_out == ()


def test_the_model_has_the_file_s_name_and_no_other_model_s_facts(alone, tmp_path):
    record = patch(alone, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert (record.model, record.architecture) == (alone.stem, "BERT-like (by tensor names)")
    assert f"base_model: {alone.stem}\n" in card
    assert "another-model-s" not in card
    assert "surgeon/source" not in card


def test_its_artifact_is_verified_compared_and_restored(alone, tmp_path):
    out, back = tmp_path / "out", tmp_path / "back"
    edits = patch(alone, out).edits
    assert verify(out).passed
    found = compare(open_checkpoint(alone), open_checkpoint(out)).tensors
    assert {tensor.name: tensor.dims for tensor in found} == {e.tensor: (3, 9) for e in edits}
    restore(out, back)
    assert files_of(back) == {alone.name: alone.read_bytes()}


def test_the_artifact_may_lie_beside_the_file_and_not_in_its_place(alone):
    before = files_of(alone.parent)
    for output in (alone, alone.parent):
        with pytest.raises(OutputError, match="name a place elsewhere"):
            patch(alone, output, force=True)
    assert files_of(alone.parent) == before
    patch(alone, alone.parent / "out")
    assert (alone.parent / "out" / alone.name).is_file()


def test_nothing_advises_to_measure_it(alone, json_of):
    assert json_of("scan", alone)["measure"] is None
    for method, complaint in (("ablation", "has no config.json"), ("layernorm", "`relax`$")):
        with pytest.raises(SurgeonError, match=complaint):
            plan_of(alone, remove_outliers=1, method=method)


def test_the_onnx_half_of_it_is_refused_before_anything_is_written(alone, tmp_path):
    before = files_of(tmp_path)
    with pytest.raises(ExportError, match=r"no config\.json beside it.*or use `onnx=False`"):
        patch(alone, tmp_path / "new" / "out", onnx=True)
    assert files_of(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_pattern_tells_the_sites_in_place_of_the_names(alone, tmp_path):
    checkpoint = open_checkpoint(alone, sites_pattern=_BERT_S_NORMS)
    assert checkpoint.family.name == "unknown by --sites-pattern"
    patch(checkpoint, tmp_path / "pattern")
    patch(alone, tmp_path / "names")
    patched = [(tmp_path / name / alone.name).read_bytes() for name in ("pattern", "names")]
    assert patched[0] == patched[1] != alone.read_bytes()
    with pytest.raises(SelectionError, match=r"matches no module; .* likely 'bert"):
        assert open_checkpoint(alone, sites_pattern="nowhere").sites


def test_with_a_configuration_beside_it_all_of_the_directory_is_the_model(tiny, alone, tmp_path):
    shutil.copy(tiny("bert") / "config.json", alone.parent)
    record = patch(alone, tmp_path / "out")
    assert (record.model, record.architecture) == ("downloads", "BERT")
    assert files_of(tmp_path / "out").keys() == {
        alone.name, "config.json", "taxes.pdf", "holiday/beach.jpg", "surgeon/source/README.md",
    } | _OWN  # fmt: skip
    assert verify(tmp_path / "out").passed
    restore(tmp_path / "out", tmp_path / "back")
    source = files_of(alone.parent)
    assert files_of(tmp_path / "back") == {n: source[n] for n in source.keys() - {*record.left_out}}


def test_a_name_that_transformers_would_not_look_for_has_no_onnx_half(source, tmp_path):
    (source / "model.safetensors").rename(source / "mine.safetensors")
    with pytest.raises(ExportError, match=r"model\.safetensors; rename it, or use `onnx=False`"):
        patch(source / "mine.safetensors", tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        (["../taxes.safetensors"], "not the names of files"),
        (["/etc/passwd"], "not the names of files"),
        ([7], "not the names of files"),
        ("mine.safetensors", "not the names of files"),
        (["gone.safetensors"], "named by the record, but not there"),
        ([], "no weights in it"),
    ],
)
def test_a_record_that_names_other_weights_is_refused(tiny, tmp_path, weights, complaint):
    shutil.copy(tiny("bert") / "model.safetensors", tmp_path / "mine.safetensors")
    patch(tmp_path / "mine.safetensors", tmp_path / "out")
    edit_record(tmp_path / "out", lambda record: record.update(weights=weights))
    with pytest.raises(CheckpointError, match=complaint):
        open_checkpoint(tmp_path / "out")
