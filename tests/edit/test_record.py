import json

import pytest
from families import save_family

from surgeon import Recipe, make_plan, open_checkpoint, read_record, restore, verify, write_artifact


@pytest.fixture
def artifact(tmp_path):
    """A patched BART, whose encoder and decoder both have layers 0 and 1."""
    save_family("bart", tmp_path / "source")
    plan = make_plan(open_checkpoint(tmp_path / "source"), Recipe(dims=(3,)))
    write_artifact(plan, tmp_path / "out", onnx=False)
    return tmp_path / "out"


def test_the_record_tells_the_stack_in_which_an_edit_s_layer_counts(artifact):
    edits = read_record(artifact).edits
    assert len(edits) == 8
    for edit in edits:
        assert edit.tensor.startswith(f"model.{edit.stack}.layers.{edit.layer}.final_layer_norm.")
    assert {edit.stack for edit in edits} == {"encoder", "decoder"}


def test_the_card_tells_the_architecture_and_the_place_of_each_edit(artifact):
    card = (artifact / "README.md").read_text()
    assert "BART; edited: decoder output layernorm, encoder output layernorm." in card
    assert (
        "| `model.decoder.layers.1.final_layer_norm.bias` | 3 "
        "| decoder layer 1 output layernorm bias |"
    ) in card


def test_a_record_from_before_stacks_were_told_is_read_verified_and_undone(artifact, tmp_path):
    path = artifact / "surgeon" / "record.json"
    record = json.loads(path.read_text())
    del record["blake3"]  # which came later still
    for edit in record["edits"]:
        assert edit.pop("stack") in ("encoder", "decoder")
    path.write_text(json.dumps(record))
    assert {edit.stack for edit in read_record(artifact).edits} == {""}
    assert verify(artifact).passed
    restore(artifact, tmp_path / "back")
    source = tmp_path / "source" / "model.safetensors"
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == source.read_bytes()
