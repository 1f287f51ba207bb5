import json
import shutil

import pytest
import torch
import transformers
from artifacts import assert_undone, patch, stored_tensors
from safetensors.torch import load_file, save_file

from surgeon import compare, open_checkpoint, restore
from surgeon.errors import CheckpointError

_SHARD = "5KB"


@pytest.fixture(scope="module")
def shards(tiny, tmp_path_factory):
    """A tiny BERT in shards, with an index that has keys of its own."""
    folder = tmp_path_factory.mktemp("shards") / "model"
    model = transformers.AutoModelForMaskedLM.from_pretrained(tiny("bert"))
    model.save_pretrained(folder, max_shard_size=_SHARD)
    index_path = folder / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    index["metadata"]["mine"] = "kept"
    index["extra"] = [1, 2]
    index_path.write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def pickle_shards(shards, tmp_path_factory):
    """The same as sharded pickles."""
    folder = tmp_path_factory.mktemp("pickles") / "model"
    folder.mkdir()
    for path in shards.glob("*.safetensors"):
        name = path.name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        torch.save(load_file(path), folder / name)
    index = (shards / "model.safetensors.index.json").read_text()
    index = index.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
    (folder / "pytorch_model.bin.index.json").write_text(index)
    shutil.copy(shards / "config.json", folder)
    return folder


def test_only_planned_bytes_of_shards_change_and_the_index_is_kept(shards, tmp_path):
    record = patch(shards, tmp_path / "out")
    assert len(record.weights) > 3
    touched = {edit.file for edit in record.edits}
    assert 0 < len(touched) < len(record.weights)
    for path in shards.iterdir():
        before, after = path.read_bytes(), (tmp_path / "out" / path.name).read_bytes()
        assert (before != after) == (path.name in touched)
        assert len(before) == len(after)
    found = compare(open_checkpoint(shards), open_checkpoint(tmp_path / "out"))
    assert found.scalars_changed == record.parameters_changed == 12
    assert_undone(tmp_path / "out", shards)


def test_sharded_pickles_become_sharded_safetensors(pickle_shards, shards, tmp_path):
    record = patch(pickle_shards, tmp_path / "out")
    assert len(record.converted_from) == len(record.weights) > 3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not [name for name in names if name.endswith(".bin") or "bin.index" in name]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(record.weights) <= names
    assert index["extra"] == [1, 2]
    assert index["metadata"]["mine"] == "kept"
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    for norm in (layer.output.LayerNorm for layer in model.bert.encoder.layer):
        assert (torch.stack([norm.weight, norm.bias])[:, [3, 9]] == 0).all()
    restore(tmp_path / "out", tmp_path / "back")
    assert compare(open_checkpoint(tmp_path / "back"), open_checkpoint(shards)).identical


def test_two_pickles_that_would_have_one_name_are_refused(pickle_shards, tmp_path, refused):
    source = shutil.copytree(pickle_shards, tmp_path / "source")
    index = source / "pytorch_model.bin.index.json"
    one, other, *_ = sorted(source.glob("*.bin"))
    twin = one.name.replace("pytorch_", "")
    other.rename(source / twin)
    index.write_text(index.read_text().replace(other.name, twin))
    out = tmp_path / "out"
    refused("patch", source, "--dims", 3, "--no-onnx", "-o", out, says="File exists")
    assert not out.exists()


def test_a_single_file_goes_before_shards_and_safetensors_before_pickles(shards, tmp_path):
    both = shutil.copytree(shards, tmp_path / "both")
    save_file(stored_tensors(shards), both / "model.safetensors")
    (both / "pytorch_model.bin").write_bytes(b"never opened")
    checkpoint = open_checkpoint(both)
    assert [file.path.name for file in checkpoint.files] == ["model.safetensors"]
    record = patch(both, tmp_path / "out")
    assert "pytorch_model.bin" in record.left_out
    assert "model.safetensors.index.json" in record.left_out


def test_a_weight_file_of_another_name_is_patched_under_that_name(source, tmp_path):
    (source / "model.safetensors").rename(source / "mine.safetensors")
    with pytest.raises(CheckpointError, match=r"found mine\.safetensors: give one of them"):
        open_checkpoint(source)
    patch(source / "mine.safetensors", tmp_path / "out")
    assert_undone(tmp_path / "out", source)


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", "x\0y", 7, None],
)
def test_an_index_that_points_elsewhere_is_refused(shards, tmp_path, shard):
    source = shutil.copytree(shards, tmp_path / "source")
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = shard
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="is not the name of a file beside it"):
        open_checkpoint(source)


def test_an_index_that_does_not_fit_its_shards_is_refused(shards, tmp_path):
    source = shutil.copytree(shards, tmp_path / "source")
    path = source / "model.safetensors.index.json"
    homes = json.loads(path.read_text())["weight_map"]
    shutil.copy(source / min(homes.values()), source / "twin.safetensors")
    first = next(iter(homes))
    for weight_map, complaint in (
        (dict.fromkeys(homes, min(homes.values())), "though the index says so"),
        ({**homes, "new": "model-9.safetensors"}, "named by the index, but not"),
        ({**homes, first: "twin.safetensors"}, "is also in"),
        ({}, "no weight_map"),
        (None, "not valid JSON"),
    ):
        index = json.dumps({"weight_map": weight_map}) if weight_map is not None else "[" * 100_000
        path.write_text(index)
        with pytest.raises(CheckpointError, match=complaint):
            open_checkpoint(source)


def test_one_shard_of_several_is_not_the_model(shards, tmp_path):
    first = min(shards.glob("*.safetensors"))
    with pytest.raises(CheckpointError, match="one shard of several, not the whole model; give"):
        open_checkpoint(first)
    source = shutil.copytree(shards, tmp_path / "source")
    index = source / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(first.name, "part.safetensors"))
    (source / first.name).rename(source / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"part\.safetensors: is one shard of several"):
        open_checkpoint(source / "part.safetensors")
    index.unlink()
    (source / "part.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors\.index\.json: fetch that"):
        open_checkpoint(source)


def test_a_file_that_no_index_names_and_the_only_shard_of_one_are_models(shards, tiny, tmp_path):
    source = shutil.copytree(shards, tmp_path / "source")
    for name in ("consolidated.safetensors", "model-00001-of-00001.safetensors"):
        shutil.copy(tiny("bert") / "model.safetensors", source / name)
        assert open_checkpoint(source / name).layers == 3


@pytest.mark.parametrize(
    ("name", "give"),
    [("model.Q4_0.gguf", "the model it was made of"), ("a.pt", "it or its model directory")],
)
def test_a_file_of_another_kind_is_told_what_to_give_instead(tmp_path, name, give):
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=f"not a .safetensors file; give {give}"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["model.Q4_0.gguf"], r"found model\.Q4_0\.gguf, and GGUF it cannot edit"),
        (["adapter_config.json", "adapter_model.safetensors"], "PEFT adapter, not a model: merge"),
        (["notes.txt", "training_args.bin", "optimizer.pt"], "nothing like them is there"),
        (["model.bin", "training_args.bin"], r"found model\.bin: if it.*rename it to pytorch_mod"),
        (["model.pt"], r"found model\.pt: if it .*rename it to pytorch_model\.bin"),
        (["consolidated.00.pth"], r"found consolidated\.00\.pth: if it"),
        (["tf_model.h5"], r"found tf_model\.h5, which is not of PyTorch: load it where"),
        (["flax_model.msgpack"], r"found flax_model\.msgpack, which is not of PyTorch"),
        (["model.ckpt.index"], r"found model\.ckpt\.index, which is not of PyTorch"),
        (["rust_model.ot"], r"found rust_model\.ot, which is not of PyTorch"),
        (["model.onnx"], r"found model\.onnx: give it as MODEL"),
        (
            ["model.fp16-00001-of-00002.safetensors", "model.safetensors.index.fp16.json"],
            r"model\.safetensors\.index\.fp16\.json, the index of a variant: rename it to model",
        ),
        (
            ["pytorch_model.fp16-00001-of-00002.bin", "pytorch_model.bin.index.fp16.json"],
            r"the index of a variant: rename it to pytorch_model\.bin\.index\.json",
        ),
        (
            ["pytorch_model-00001-of-00002.bin"],
            r"found the shard .*\.bin, and no pytorch_model\.bin\.index\.json: fetch that too",
        ),
        (["0_Transformer/model.safetensors"], r"folder 0_Transformer: give .*/0_Transformer$"),
        (["snapshots/abc/pytorch_model.bin"], r"folder snapshots/abc: give .*/snapshots/abc$"),
        (
            ["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors.index.json"],
            r"folder checkpoint-1000 and 1 more with weights: give .*/checkpoint-1000$",
        ),
    ],
)
def test_a_directory_without_weights_is_told_by_what_it_has(tmp_path, names, complaint):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=complaint):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("model.safetensors", ""),
        ("config.json", ""),
        ("config.json", "model.safetensors"),
        ("model.safetensors", "model.safetensors"),
        ("model-00001-of-00005.safetensors", ""),
    ],
)
def test_a_link_to_nowhere_is_named_with_where_it_leads(
    tiny, shards, tmp_path, name, given, refused
):
    source = shards if "-of-" in name else tiny("bert")
    folder = shutil.copytree(source, tmp_path / "model")
    path = min(folder.glob("*-00001-of-*")) if "-of-" in name else folder / name
    path.unlink()
    path.symlink_to("../../blobs/0123")
    (folder / "pytorch_model.bin").write_bytes(b"never read in its place")
    told = "is a link to ../../blobs/0123, which is not there; fetch the model"
    for command in (["scan"], ["patch", "--dims", "1", "--no-onnx", "-o", tmp_path / "out"]):
        assert path.name in refused(*command, folder / given, says=told)
    assert not (tmp_path / "out").exists()
