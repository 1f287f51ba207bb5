import io
import json
import os
import shutil

import numpy as np
import pytest
import torch
import transformers
from artifacts import (
    assert_undone,
    differing_offsets,
    edit_record,
    files_of,
    flip_bit,
    patch,
    plan_of,
    planned_offsets,
)
from blake3 import blake3
from families import save_family
from safetensors.numpy import load, load_file

from surgeon import open_checkpoint, read_record, restore, verify, write_artifact
from surgeon.edit.card import read_front_matter
from surgeon.edit.files import hash_file
from surgeon.edit.record import read_excised
from surgeon.errors import CheckpointError, ExportError, OutputError


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_the_planned_bytes_of_minilm_change(minilm, minilm_patched):
    before = (minilm / "model.safetensors").read_bytes()
    after = (minilm_patched / "model.safetensors").read_bytes()
    planned = planned_offsets(plan_of(minilm, dims=(99, 157)))["model.safetensors"]
    assert len(planned) == 24 * 4
    assert differing_offsets(before, after) <= planned
    assert not any(after[offset] for offset in planned)


def test_every_other_file_of_minilm_is_as_it_was(minilm, minilm_patched):
    source, made = files_of(minilm), files_of(minilm_patched)
    assert made["surgeon/source/README.md"] == source["README.md"]
    assert {n for n in source if made[n] != source[n]} == {"README.md", "model.safetensors"}
    assert made.keys() - source.keys() == {
        "onnx/model.onnx", "onnx/model.onnx_data", "surgeon/record.json",
        "surgeon/excised.safetensors", "surgeon/source/README.md",
    }  # fmt: skip


def test_transformers_and_sentence_transformers_load_what_an_edit_in_memory_gives(
    minilm, minilm_patched
):
    from sentence_transformers import SentenceTransformer

    sentences = ["A river runs through the town.", "Nobody expected rain.", "Why?"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    tokens = tokenizer(sentences, padding=True, return_tensors="pt")
    in_memory = transformers.AutoModel.from_pretrained(minilm).eval()
    wrapped = SentenceTransformer(str(minilm), device="cpu")
    for model in (in_memory, wrapped[0].auto_model):
        with torch.no_grad():
            for layer in model.encoder.layer:
                layer.output.LayerNorm.weight[[99, 157]] = 0
                layer.output.LayerNorm.bias[[99, 157]] = 0
    loaded = transformers.AutoModel.from_pretrained(minilm_patched).eval()
    with torch.no_grad():
        expected, got = in_memory(**tokens), loaded(**tokens)
    torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, rtol=0, atol=0)
    assert (got.last_hidden_state[..., [99, 157]] == 0).all()
    patched = SentenceTransformer(str(minilm_patched), device="cpu")
    np.testing.assert_array_equal(patched.encode(sentences), wrapped.encode(sentences))


def test_the_same_patch_twice_gives_the_same_bytes(tiny, patched_once, tmp_path):
    patch(tiny("bert"), tmp_path / "b", onnx=True, dims=(3, 9))
    one, two = files_of(patched_once(tiny("bert"), 3, 9)), files_of(tmp_path / "b")
    records = [json.loads(files.pop("surgeon/record.json")) for files in (one, two)]
    assert one == two
    assert "onnx/model.onnx" in one
    for record in records:
        assert record.pop("created")
        assert record.pop("blake3")  # which is that of the time too
        assert record["onnx"].pop("parity")  # another test may have exported the graph meanwhile
    assert records[0] == records[1]


def test_the_record_tells_every_hash_and_value_and_what_had_a_part(
    minilm, minilm_patched, tiny_patched
):
    record = read_record(minilm_patched)
    files = files_of(minilm_patched)
    assert record.files.keys() == files.keys() - {"surgeon/record.json"}
    for name, change in record.files.items():
        assert change.after == hash_file(minilm_patched / name)
        assert change.after.blake3 == blake3(files[name]).hexdigest()
        assert change.after.size == len(files[name])
        if change.source:
            assert change.before == hash_file(minilm / change.source)
    tensors = load_file(minilm / "model.safetensors")
    excised = read_excised(minilm_patched)
    for edit in record.edits:
        np.testing.assert_array_equal(edit.old, tensors[edit.tensor][[99, 157]])
        assert edit.new.tolist() == [0.0, 0.0]
        np.testing.assert_array_equal(excised[edit.tensor], tensors[edit.tensor][[99, 157]])
    assert (record.parameters_changed, record.parameters_total) == (24, 22_713_216)
    assert record.versions.keys() == {"numpy", "torch", "transformers", "onnx"}
    assert read_record(tiny_patched).versions.keys() == {"numpy"}


def test_the_card_names_the_base_the_recipe_the_edits_and_the_undo(minilm_patched):
    card = (minilm_patched / "README.md").read_text()
    header = card.split("---\n")[1]
    assert "base_model: model\n" in header  # the directory's name inside the package
    assert "license: apache-2.0\n" in header
    assert "| `encoder.layer.5.output.LayerNorm.bias` | 99, 157 |" in card
    assert "surgeon restore" in card
    assert "mode: zero" in card


def test_the_card_of_an_artifact_patched_again_has_each_tag_once(tiny, tmp_path):
    patch(tiny("bert"), tmp_path / "one", dims=(3,))
    patch(tmp_path / "one", tmp_path / "two", dims=(5,))
    tags = read_front_matter(tmp_path / "two" / "README.md")["tags"]
    assert tags == ["norm-surgeon", "outlier-dimensions"]


def test_a_dtype_that_onnxruntime_does_not_compute_in_is_refused(tiny, tmp_path):
    with pytest.raises(ExportError, match="`dtype` bfloat16: give float32 or float16"):
        patch(tiny("bert"), tmp_path / "out", onnx=True, dtype="bfloat16")


@pytest.mark.parametrize(
    "name", ["minilm", pytest.param("antiberty", marks=pytest.mark.slow), "iglm_s"]
)
def test_restore_gives_back_the_source(request, tmp_path, name):
    restore(request.getfixturevalue(f"{name}_patched"), tmp_path / "back")
    source, back = files_of(request.getfixturevalue(name)), files_of(tmp_path / "back")
    if name != "minilm":  # a pickle: its tensors, as safetensors
        state = io.BytesIO(source.pop("pytorch_model.bin"))
        state = torch.load(state, map_location="cpu", weights_only=True)
        tensors = load(back.pop("model.safetensors"))
        assert tensors.keys() == state.keys()
        for key, value in tensors.items():
            np.testing.assert_array_equal(value, state[key].numpy())
    assert back == source


def test_a_file_of_any_name_comes_back(source, tmp_path):
    for name in ("folder\\unzipped.txt", "a\nb", "..c", os.fsdecode(b"\xff")):
        (source / name).write_bytes(b"kept")
    patch(source, tmp_path / "out")
    assert_undone(tmp_path / "out", source)


def test_no_two_files_of_an_artifact_differ_in_case_alone(source, tmp_path):
    """Where macOS and Windows take them for one file, one would be written over the other."""
    for name in ("readme.md", "Surgeon/Record.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"kept")
    patch(source, tmp_path / "out", dims=(3,))
    names = [name.lower() for name in files_of(tmp_path / "out")]
    assert len(set(names)) == len(names)
    restore(tmp_path / "out", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)


@pytest.mark.parametrize("name", ["model.safetensors", "surgeon/excised.safetensors"])
def test_restore_refuses_an_artifact_that_was_changed(tiny, tmp_path, name):
    patch(tiny("bert"), tmp_path / "out", dims=(3,))
    flip_bit(tmp_path / "out" / name)
    with pytest.raises(CheckpointError, match="changed after the patch"):
        restore(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with pytest.raises(OutputError, match="is the source or inside it"):
        restore(tmp_path / "out", tmp_path / "out", force=True)
    (tmp_path / "out" / name).write_text("version https://git-lfs.github.com/spec/v1\noid 0\n")
    with pytest.raises(CheckpointError, match=f"{name}: is a git-LFS pointer"):
        restore(tmp_path / "out", tmp_path / "back")


@pytest.mark.parametrize("path", ["../escaped", "/tmp/escaped", "a/../../escaped", "", "a\0b"])
def test_restore_refuses_a_record_whose_paths_leave_the_folder(tiny, tmp_path, path):
    patch(tiny("bert"), tmp_path / "out", dims=(3,))
    edit_record(tmp_path / "out", lambda r: r["files"]["config.json"].update(source=path))
    with pytest.raises(CheckpointError, match="leaves the folder"):
        restore(tmp_path / "out", tmp_path / "back")
    assert _names(tmp_path) == ["out"]
    (failed,) = (check for check in verify(tmp_path / "out").checks if not check.passed)
    assert (failed.name, "leaves the folder" in failed.found) == ("config.json", True)


@pytest.mark.parametrize("dims", [[3, 16], [3, -1]])
def test_restore_refuses_dimensions_that_the_weights_do_not_have(tiny_patched, tmp_path, dims):
    out = shutil.copytree(tiny_patched, tmp_path / "out")
    edit_record(out, lambda r: [part.update(dims=dims) for part in (r, *r["edits"])])
    with pytest.raises(CheckpointError, match="does not fit the weights"):
        restore(out, tmp_path / "back")


def test_weights_in_other_formats_are_left_out_and_named(source, tmp_path):
    twins = [
        "pytorch_model.bin", "TF_model.H5", "model.gguf", "model.fp16.safetensors", "weights.npz",
        "ggml-model-q4_0.bin", "quant/q.gguf", "optimizer.pt", "bert.ckpt.data-00000-of-00001",
        "model.safetensors.index.fp16.json",
    ]  # fmt: skip
    folders = [
        "onnx/model.onnx", "OpenVINO/openvino_model.xml", "mlx/weights.npz", "global_step5/rank.pt",
        "checkpoint-5/model.safetensors",
    ]  # fmt: skip
    modules = [
        "1_Dense/onnx/notes", "1_Dense/model.safetensors", "colbert_linear.pt",
        "adapter_model.safetensors",
    ]  # fmt: skip
    for name in [*twins, *folders, *modules, ".git/HEAD"]:
        (source / name).parent.mkdir(exist_ok=True, parents=True)
        (source / name).write_bytes(name.encode())
    record = patch(source, tmp_path / "out", dims=(3,))
    left_out = {*twins, *(f"{folder.split('/')[0]}/" for folder in folders)}
    assert record.left_out_because == {**dict.fromkeys(left_out, "weights"), ".git/": "bookkeeping"}
    assert set(record.left_out) == record.left_out_because.keys()
    made = files_of(tmp_path / "out")
    assert not made.keys() & {*twins, *folders}
    assert all(made[name] == name.encode() for name in modules)


def test_links_become_files_of_their_own_and_the_linked_file_is_untouched(tiny, tmp_path):
    """A Hugging Face cache links to blobs that other snapshots share."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abc"
    shutil.copytree(tiny("bert"), blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    before = files_of(blobs)
    patch(snapshot, tmp_path / "out", dims=(3,))
    assert files_of(blobs) == before
    assert (tmp_path / "out" / "config.json").read_bytes() == before["config.json"]
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_symlink()]


@pytest.mark.parametrize("alone", [False, True])
def test_patching_an_artifact_keeps_the_first_record_and_undoes_to_it(tiny, tmp_path, alone):
    """Of a directory, and of a weight file that is all of its model."""
    source = tiny("bert")
    if alone:
        source = shutil.copy(source / "model.safetensors", tmp_path / "mine.safetensors")
    patch(source, tmp_path / "one", dims=(3,))
    patch(tmp_path / "one", tmp_path / "two", dims=(4,))
    assert_undone(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("where", ["", "inside", "inside/deeper", ".."])
def test_the_source_a_folder_in_it_and_one_around_it_are_no_output(tiny, tmp_path, where):
    source = tmp_path / "around" / "source"
    shutil.copytree(tiny("bert"), source)
    before = files_of(tmp_path)
    with pytest.raises(OutputError, match="name a place elsewhere"):
        patch(source, source / where, dims=(3,), force=True)
    assert files_of(tmp_path) == before


def test_a_folder_that_holds_a_link_to_the_source_is_no_output(tiny, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "model").symlink_to(tiny("bert"))
    with pytest.raises(OutputError, match="holds the source"):
        patch(tmp_path / "links" / "model", tmp_path / "links", force=True)
    assert _names(tmp_path) == ["links"]


def test_what_the_links_of_a_source_lead_to_is_no_output_as_in_the_hub_s_cache(source, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (source / "config.json").rename(blobs / "1")
    (source / "config.json").symlink_to(blobs / "1")
    for output in (blobs, blobs / "1", source / "config.json"):
        with pytest.raises(OutputError, match="the source"):
            patch(source, output, force=True)
    assert _names(blobs) == ["1"]


def test_a_link_to_a_file_elsewhere_is_left_out(source, tmp_path):
    """A hostile repository may link to a secret, and an artifact is made to be given away."""
    (tmp_path / "secret").write_text("secret")
    (source / "notes.txt").symlink_to(tmp_path / "secret")
    (source / "folder").symlink_to(tmp_path)
    (source / "deeper").mkdir()
    (source / "deeper" / "kept").write_text("kept")
    (source / "inside.txt").symlink_to("deeper/kept")
    record = patch(source, tmp_path / "out", dims=(3,))
    assert record.left_out_because == {"notes.txt": "links", "folder/": "links"}
    assert (tmp_path / "out" / "inside.txt").read_text() == "kept"
    assert b"secret" not in b"".join(files_of(tmp_path / "out").values())


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "1_Pooling", "2_Dense/spm.model"])
@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_to_elsewhere_where_a_loader_reads_is_refused(source, tmp_path, name, target):
    (tmp_path / "elsewhere").mkdir()
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).symlink_to(tmp_path / target)
    with pytest.raises(OutputError, match=f"{name}.*put a copy in its place"):
        patch(source, tmp_path / "out", dims=(3,))
    assert _names(tmp_path) == ["elsewhere", "source"]


def test_files_beside_a_linked_configuration_are_copied_with_it(tiny, tmp_path, done):
    """A model that was linked file by file, as ``ln -s ../models/bert/* .`` does."""
    models = tmp_path / "models"
    shutil.copytree(tiny("bert"), models / "bert")
    (models / "bert" / "vocab.txt").write_text("[PAD]")
    (models / "bert" / "deeper").mkdir()
    (models / "bert" / "deeper" / "notes.txt").write_text("not beside it")
    (models / "secret").write_text("secret")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "deeper", "deeper/notes.txt"):
        (source / name.replace("/", "-")).symlink_to(f"../models/bert/{name}")
    (source / "secret.txt").symlink_to(models / "secret")
    (source / "gone.txt").symlink_to("nowhere")
    (source / "null.txt").symlink_to("/dev/null")
    os.mkfifo(source / "pipe")
    record = patch(source, tmp_path / "out", dims=(3,))
    for name in ("config.json", "vocab.txt"):
        assert not (tmp_path / "out" / name).is_symlink()
        assert (tmp_path / "out" / name).read_bytes() == (models / "bert" / name).read_bytes()
    links = {"deeper/", "deeper-notes.txt", "secret.txt", "gone.txt", "null.txt"}
    assert record.left_out_because == {**dict.fromkeys(links, "links"), "pipe": "no files"}
    printed = done("patch", source, "--dims", "3", "--no-onnx", "-o", tmp_path / "two").out
    assert "links that lead out of the model's folder or nowhere: deeper-notes.txt" in printed
    assert "no files that can be copied: pipe\n" in printed


def test_the_folder_of_a_linked_file_that_describes_no_model_stays_closed(source, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "config.json").write_text('{"password": "secret"}')
    (secrets / "key").write_text("secret")
    (source / "config.json").unlink()
    (source / "config.json").symlink_to(secrets / "config.json")
    (source / "vocab.txt").symlink_to(secrets / "key")
    checkpoint = open_checkpoint(source, sites_pattern=r".*\d\.output\.LayerNorm")
    with pytest.raises(OutputError, match="a link that leads out"):
        patch(checkpoint, tmp_path / "out", dims=(3,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", ["of surgeon", "of a file", "of the disk"])
def test_an_error_names_the_output_and_never_the_hidden_folder(tiny, tmp_path, monkeypatch, error):
    def fail(plan, path, target):
        if error == "of surgeon":
            raise CheckpointError(f"{target}: no such file")
        raise OSError(28, "No space left", *([str(target)] if error == "of a file" else []))

    monkeypatch.setattr("surgeon.edit.write.write_card", fail)
    out = tmp_path / "new" / "out"
    with pytest.raises((CheckpointError, OSError)) as caught:
        patch(tiny("bert"), out, dims=(3,))
    card = f"{out}/{'' if error == 'of the disk' else 'README.md'}"
    if error == "of surgeon":
        assert str(caught.value) == f"{card}: no such file"
    else:
        assert caught.value.filename == str(tmp_path / card)
    assert _names(tmp_path) == []


def test_a_source_that_changes_after_planning_is_noticed(source, tmp_path):
    plan = plan_of(source, dims=(3,))
    first = plan.checkpoint.tensors[plan.edits[0].tensor]
    flip_bit(source / "model.safetensors", first.start + 3 * 4)
    with pytest.raises(CheckpointError, match="changed while it was being read"):
        write_artifact(plan, tmp_path / "out", onnx=False)
    assert _names(tmp_path) == ["source"]


@pytest.fixture
def bart(tmp_path):
    """A patched BART, whose encoder and decoder both have layers 0 and 1."""
    save_family("bart", tmp_path / "source")
    patch(tmp_path / "source", tmp_path / "out", dims=(3,))
    return tmp_path / "out"


def test_the_record_tells_the_stack_in_which_an_edit_s_layer_counts(bart):
    edits = read_record(bart).edits
    assert len(edits) == 8
    for edit in edits:
        assert edit.tensor.startswith(f"model.{edit.stack}.layers.{edit.layer}.final_layer_norm.")
    assert {edit.stack for edit in edits} == {"encoder", "decoder"}


def test_the_card_tells_the_architecture_and_the_place_of_each_edit(bart):
    card = (bart / "README.md").read_text()
    assert "BART; edited: decoder output layernorm, encoder output layernorm." in card
    place = "decoder layer 1 output layernorm bias"
    assert f"| `model.decoder.layers.1.final_layer_norm.bias` | 3 | {place} |" in card


def test_a_record_from_before_stacks_were_told_is_read_verified_and_undone(bart, tmp_path):
    path = bart / "surgeon" / "record.json"
    record = json.loads(path.read_text())
    del record["blake3"]  # which came later still
    for edit in record["edits"]:
        assert edit.pop("stack") in ("encoder", "decoder")
    path.write_text(json.dumps(record))
    assert {edit.stack for edit in read_record(bart).edits} == {""}
    assert_undone(bart, tmp_path / "source")
