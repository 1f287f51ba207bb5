import json
import shutil
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from artifacts import edit_json, files_of, patch_onnx
from onnx.inliner import inline_local_functions
from onnx_exports import (
    MODELS,
    TOKENS,
    export,
    fuse,
    initializers,
    make_model,
    move_weights_beside,
    norm_chain,
    store_as,
)

from surgeon import open_onnx, restore, verify
from surgeon.cli import run
from surgeon.errors import CheckpointError, SelectionError
from surgeon.onnx.weights import read_initializers

_DIMS = (3, 9)
_PATTERN = r"norm\.\d\.weight"
_CASES = [  # model, exporter, fresh, config.json beside it
    ("bert", "legacy-14", False, True),
    ("bert", "legacy-14", False, False),
    ("bert", "legacy-17", True, True),
    ("bert", "dynamo", False, False),
    pytest.param("bert", "dynamo", True, True, marks=pytest.mark.slow),
    ("bert", "dynamo-external", False, True),
    ("bert", "fused", False, False),
    ("bert", "fused", True, True),
    pytest.param("bart", "dynamo", True, True, marks=pytest.mark.slow),
    pytest.param("bart", "dynamo", True, False, marks=pytest.mark.slow),
    ("albert", "legacy-14", False, True),
    ("gpt2", "legacy-14", False, True),
    pytest.param("gpt2", "dynamo", False, True, marks=pytest.mark.slow),
    ("llama", "legacy-14", False, True),
    pytest.param("gemma2", "dynamo", False, True, marks=pytest.mark.slow),
]


_MADE_OF = {"fused": ("legacy-14", fuse), "dynamo-external": ("dynamo", move_weights_beside)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Give a copy of a model's export, and the model; each is exported once."""
    made = {}
    folder = tmp_path_factory.mktemp("exports")

    def make(name, how, target, *, fresh=False, config=True):
        key = f"{name}-{how}-{fresh}"
        if key not in made:
            path = folder / key / "model.onnx"
            if how in _MADE_OF:
                first, change = _MADE_OF[how]
                source, _ = make(name, first, folder / f"{key}-source", fresh=fresh)
                made[key] = change(source, path)
            else:
                made[key] = export(make_model(name, fresh=fresh), path, how)
        shutil.copytree(made[key].parent, target)
        if not config:
            (target / "config.json").unlink()
        return target / "model.onnx", make_model(name, fresh=fresh)

    return make


def _edited(model, output):
    """Zero the dims of a PyTorch model's output sites: what an artifact is compared with."""
    changed = 0
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        if module.endswith(output) and "attention" not in module.split(".")[-3:-1]:
            with torch.no_grad():
                conv = leaf == "weight" and type(model.get_submodule(module)).__name__ == "Conv1D"
                # Gemma multiplies by 1 + the stored gain.
                zero = -1.0 if output == "post_feedforward_layernorm" else 0.0
                (parameter.T if conv else parameter)[list(_DIMS)] = zero
            changed += 1
    assert changed
    return model


def _run(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    values = (t.numpy() for t in TOKENS)
    feeds = dict(zip(("input_ids", "attention_mask"), values, strict=True))
    return session.run(None, feeds)[0][TOKENS[1].numpy() == 1]


def _torch(model):
    with torch.no_grad():
        out = model(input_ids=TOKENS[0], attention_mask=TOKENS[1])[0].numpy()
    return out[TOKENS[1].numpy() == 1]


@pytest.mark.parametrize(("name", "how", "fresh", "config"), _CASES)
def test_the_patched_file_computes_what_pytorch_does_and_restores_to_the_source(
    exported, tmp_path, name, how, fresh, config
):
    path, model = exported(name, how, tmp_path / "source", fresh=fresh, config=config)
    untouched = _run(path)
    np.testing.assert_allclose(untouched, _torch(model), atol=1e-4)
    record = patch_onnx(path, tmp_path / "out")
    patched = _run(tmp_path / "out" / "model.onnx")
    np.testing.assert_allclose(patched, _torch(_edited(model, MODELS[name].output)), atol=1e-4)
    assert np.abs(patched - untouched).max() > 1e-2
    assert bool(record.onnx_patch.splits) == fresh
    assert verify(tmp_path / "out").passed
    restore(tmp_path / "out", tmp_path / "back")
    assert files_of(path.parent) == files_of(tmp_path / "back")


@pytest.mark.parametrize(("how", "fresh"), [("legacy-14", False), ("dynamo-external", False),
                                            ("legacy-17", True), ("fused", True)])  # fmt: skip
def test_no_other_initializer_or_node_changes(exported, tmp_path, how, fresh):
    """Read by onnx's own library: the claim does not rest on surgeon's reader."""
    path, _ = exported("bert", how, tmp_path / "source", fresh=fresh)
    record = patch_onnx(path, tmp_path / "out")
    before, after = (onnx.load(p) for p in (path, tmp_path / "out" / "model.onnx"))
    old, new = initializers(before), initializers(after)
    copies = {split.copy: split.tensor for split in record.onnx_patch.splits}
    assert new.keys() == old.keys() | copies.keys()
    changed = {
        name: np.flatnonzero(old[copies.get(name, name)] != values).tolist()
        for name, values in new.items()
        if old[copies.get(name, name)].tobytes() != values.tobytes()
    }
    assert changed.keys() == {edit.tensor for edit in record.edits if edit.changed}
    assert all(dims == list(_DIMS) for dims in changed.values())
    assert changed
    renamed = 0
    for was, now in zip(before.graph.node, after.graph.node, strict=True):
        renamed += any(name in copies for name in now.input)
        now.input[:] = [
            original if name in copies else name
            for name, original in zip(now.input, was.input, strict=True)
        ]
        assert was.SerializeToString() == now.SerializeToString()
    assert renamed == (2 if fresh else 0)
    del before.graph.node[:], after.graph.node[:]
    del before.graph.initializer[:], after.graph.initializer[:]
    assert before.SerializeToString() == after.SerializeToString()


def test_an_edit_in_place_changes_no_other_byte_of_the_file(exported, tmp_path):
    path, _ = exported("bert", "legacy-14", tmp_path / "source")
    record = patch_onnx(path, tmp_path / "out")
    before, after = path.read_bytes(), (tmp_path / "out" / "model.onnx").read_bytes()
    assert len(before) == len(after)
    differing = np.flatnonzero(np.frombuffer(before, "u1") != np.frombuffer(after, "u1"))
    assert record.parameters_changed <= differing.size <= 4 * record.parameters_changed
    assert record.onnx_patch.undo == ()


def test_names_and_structure_find_the_same_norms(exported, tmp_path):
    for how in ("legacy-14", "fused", "dynamo"):
        path, _ = exported("bert", how, tmp_path / how)
        named = open_onnx(path)
        if how == "fused":
            edit_json(path.with_name("config.json"), model_type="unknown")
        else:
            path.with_name("config.json").unlink()
        inferred = open_onnx(path)
        assert named.inferred != inferred.inferred
        assert [(s.role, s.layer, s.gain, s.bias) for s in named.checkpoint.sites] == [
            (s.role, s.layer, s.gain, s.bias) for s in inferred.checkpoint.sites
        ]
        assert Counter(site.role for site in named.checkpoint.sites) == {
            "output": 2, "attention": 2, "embeddings": 1
        }  # fmt: skip


def test_the_layers_of_an_encoder_that_was_exported_alone_are_found_by_name(tmp_path):
    """Optimum writes one beside the decoder: its names begin below the encoder."""
    path = export(make_model("bart").encoder, tmp_path / "encoder_model.onnx", "legacy-14")
    graph = onnx.load(path)
    for tensor in graph.graph.initializer:
        tensor.name = tensor.name.removeprefix("model.")
    for node in graph.graph.node:
        node.input[:] = [name.removeprefix("model.") for name in node.input]
    onnx.save(graph, path)
    model = open_onnx(path)
    assert model.inferred == "by names of BART"
    outputs = [site for site in model.checkpoint.sites if site.role == "output"]
    assert [(s.stack, s.layer, s.gain) for s in outputs] == [
        ("encoder", layer, f"layers.{layer}.final_layer_norm.weight") for layer in (0, 1)
    ]


def test_a_pre_norm_model_without_a_config_is_refused_in_one_line(exported, tmp_path, refused):
    path, _ = exported("gpt2", "legacy-14", tmp_path / "source", config=False)
    refused(
        "patch", path, "--dims", "3", "-o", tmp_path / "out", says="REGEX, or put the model's own"
    )
    assert not (tmp_path / "out").exists()
    pattern = r"model\.transformer\.h\.\d+\.mlp\.c_proj\.weight"
    assert {site.gain for site in open_onnx(path, pattern).checkpoint.sites} == {
        f"model.transformer.h.{layer}.mlp.c_proj.weight" for layer in (0, 1)
    }


def test_a_model_of_fewer_layers_than_its_config_says_is_refused(exported, tmp_path):
    path, _ = exported("bert", "legacy-14", tmp_path / "source")
    edit_json(path.with_name("config.json"), num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"2 layers found and config\.json says 3"):
        open_onnx(path)


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"])
def test_every_float_type_is_rounded_once(tmp_path, kind):
    onnx.save(norm_chain(getattr(onnx.TensorProto, kind)), tmp_path / "m.onnx")
    patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(2,), mode="scale", factor=0.3)
    before, after = (onnx.load(tmp_path / p) for p in ("m.onnx", "out/m.onnx"))
    for name, old in initializers(before).items():
        new = initializers(after)[name]
        exact = torch.tensor(float(old[2]) * 0.3, dtype=torch.float64)
        expected = exact.to(getattr(torch, kind.lower()))
        assert float(new[2]) == float(expected)
        assert np.delete(new, 2).tobytes() == np.delete(old, 2).tobytes()


def test_parameters_in_constant_nodes_are_edited(tmp_path):
    model = norm_chain()
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in tensors:
        node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, node)
    onnx.save(model, tmp_path / "m.onnx")
    patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(3,))
    after = onnx.load(tmp_path / "out" / "m.onnx")
    edited = [onnx.numpy_helper.to_array(n.attribute[0].t) for n in after.graph.node[:4]]
    assert [np.flatnonzero(values == 0).tolist() for values in edited] == [[3]] * 4


def test_a_tensor_that_a_subgraph_or_the_output_reads_is_split(tmp_path):
    model = norm_chain()
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["norm.1.bias"], ["b"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("b", 1, [8])],
    )
    condition = onnx.numpy_helper.from_array(np.array(True), "always")  # noqa: FBT003
    model.graph.initializer.append(condition)
    model.graph.node.append(
        onnx.helper.make_node("If", ["always"], ["z"], then_branch=branch, else_branch=branch)
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, [8]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("norm.0.weight", 1, [8]))
    onnx.save(model, tmp_path / "m.onnx")
    x = {"x": np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)}
    record = patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(2,))
    assert {s.tensor for s in record.onnx_patch.splits} == {"norm.1.bias", "norm.0.weight"}
    onnx.checker.check_model(tmp_path / "out" / "m.onnx")
    old, new = (
        onnxruntime.InferenceSession(p).run(None, x)
        for p in (tmp_path / "m.onnx", tmp_path / "out" / "m.onnx")
    )
    assert (new[0][:, 2] == 0).all()
    assert (old[0][:, 2] != 0).all()
    for was, now in zip(old[1:], new[1:], strict=True):
        np.testing.assert_array_equal(was, now)


def test_two_names_for_the_same_bytes_of_a_data_file_are_split(tmp_path):
    model = norm_chain()
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    first, _, second, _ = model.graph.initializer
    for theirs, ours in zip(first.external_data, second.external_data, strict=True):
        ours.value = theirs.value
    onnx.save(model, tmp_path / "m.onnx")
    record = patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(2,), layers=(1,))
    assert [split.tensor for split in record.onnx_patch.splits] == ["norm.1.weight"]
    values = initializers(onnx.load(tmp_path / "out" / "m.onnx"))
    assert values["norm.0.weight"][2] == values["norm.1.weight"][2] != 0
    assert values["norm.1.weight.split"][2] == 0
    restore(tmp_path / "out", tmp_path / "back")
    for name in ("m.onnx", "m.data"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "back" / name).read_bytes()


def test_an_old_file_gets_its_copy_as_an_input_too(tmp_path):
    """Below IR version 4 every initializer is an input of the graph."""
    model = norm_chain()
    model.ir_version = 3
    model.graph.node[1].input[2] = "norm.0.bias"
    del model.graph.initializer[3:]
    for tensor in model.graph.initializer:
        value = onnx.helper.make_tensor_value_info(tensor.name, 1, [8])
        model.graph.input.append(value)
    onnx.save(model, tmp_path / "m.onnx")
    patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(2,), layers=(1,))
    after = onnx.load(tmp_path / "out" / "m.onnx")
    assert "norm.0.bias.split" in {value.name for value in after.graph.input}
    onnx.checker.check_model(after)


def test_tensors_of_numbers_in_other_fields_are_refused_by_name(tmp_path):
    model = norm_chain()
    tensor = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.double_data[:] = values
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=r"norm\.0\.weight \(F32\) is not stored as raw"):
        open_onnx(tmp_path / "m.onnx", _PATTERN)


@pytest.mark.parametrize("name", ["m.onnx", "m.data"])
def test_a_pointer_of_git_lfs_is_told(tmp_path, name):
    how = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    onnx.save(norm_chain(), tmp_path / "m.onnx", **how)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    with pytest.raises(CheckpointError, match=rf"{name}: is a git-LFS pointer"):
        open_onnx(tmp_path / "m.onnx", _PATTERN)


def test_a_folder_without_a_config_is_anybody_s_and_gives_nothing_but_the_model(tmp_path):
    onnx.save(norm_chain(), tmp_path / "m.onnx")
    for name in ("other.onnx", "letter.txt"):
        (tmp_path / name).write_text("private")
    record = patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(3,))
    assert record.left_out == ()
    made = {p.name for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert made == {"m.onnx", "README.md", "record.json", "excised.safetensors"}
    assert b"other" not in (tmp_path / "out" / "surgeon" / "record.json").read_bytes()


def test_a_pattern_that_matches_nothing_shows_what_there_is(tmp_path):
    onnx.save(norm_chain(), tmp_path / "m.onnx")
    there = r"no node's whole name; there is 'norm\.0\.weight' or 'norm\.1\.weight'$"
    with pytest.raises(SelectionError, match=there):
        open_onnx(tmp_path / "m.onnx", "weight")


def test_the_config_above_is_found_from_inside_the_folder_too(exported, tmp_path, monkeypatch):
    repo = tmp_path / "repo"
    exported("bert", "dynamo-external", repo / "onnx")
    (repo / "onnx" / "config.json").rename(repo / "config.json")
    (repo / "onnx" / "inside").mkdir()
    for folder, name in (("onnx", "model.onnx"), ("onnx/inside", "../model.onnx")):
        monkeypatch.chdir(repo / folder)
        model = open_onnx(name)
        assert model.file == "onnx/model.onnx"
        assert model.checkpoint.config["model_type"] == "bert"


def test_the_folder_onnx_of_a_repository_is_kept_with_the_files_above_it(exported, tmp_path):
    path, _ = exported("bert", "dynamo-external", tmp_path / "repo" / "onnx")
    repo = tmp_path / "repo"
    (repo / "onnx" / "config.json").rename(repo / "config.json")
    (repo / "tokenizer.json").write_text("{}")
    (repo / "model.safetensors").write_text("unpatched")
    (repo / "private.txt").write_text("not part of a model")
    record = patch_onnx(path, tmp_path / "out")
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert {"onnx/model.onnx", "onnx/model.onnx.data", "config.json", "tokenizer.json"} <= made
    assert not made & {"model.safetensors", "private.txt"}
    assert record.left_out == ("model.safetensors",)
    assert record.model == "repo"
    assert verify(tmp_path / "out").passed


def _in_int32_data(tensor):
    """Store 16-bit floats as onnx.helper.make_tensor does: as integers of one to three bytes."""
    values = onnx.numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.int32_data[:] = values.ravel().view(np.uint16).astype(int).tolist()


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("fields", [{}, {"mode": "scale", "factor": 30.0}, {"mode": "mean"}])
def test_16_bit_floats_in_int32_data_are_edited_as_those_in_raw_data(tmp_path, kind, fields):
    model = norm_chain(getattr(onnx.TensorProto, kind))
    tensors = initializers(model)
    found = []
    for folder, change in (("raw", None), ("integers", _in_int32_data)):
        for tensor in model.graph.initializer if change else ():
            change(tensor)
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "m.onnx"
        onnx.save(model, path)
        for name, values in read_initializers(path, tensors).items():
            assert values.tobytes() == tensors[name].tobytes()
        record = patch_onnx(path, tmp_path / f"{folder}-out", _PATTERN, dims=(2, 5), **fields)
        after = onnx.load(tmp_path / f"{folder}-out" / "m.onnx")
        values = initializers(after)
        found.append([values[n].tobytes() for node in after.graph.node for n in node.input[1:]])
        assert record.parameters_changed == 8
        assert verify(tmp_path / f"{folder}-out").passed
        restore(tmp_path / f"{folder}-out", tmp_path / f"{folder}-back")
        assert (tmp_path / f"{folder}-back" / "m.onnx").read_bytes() == path.read_bytes()
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("merged", [False, True])
def test_what_is_converted_before_it_is_read_is_edited_as_it_is_stored(tmp_path, kind, merged):
    """A copy of a tensor that others read too is converted as the tensor is."""
    model = norm_chain()
    if merged:
        del model.graph.initializer[3]
        model.graph.node[1].input[2] = "norm.0.bias"
    store_as(model, getattr(onnx.TensorProto, kind), {t.name for t in model.graph.initializer})
    if merged:  # two conversions of one tensor
        model.graph.node.insert(0, onnx.helper.make_node("Cast", ["norm.0.bias.stored"], ["own"]))
        model.graph.node[0].attribute.append(onnx.helper.make_attribute("to", 1))
        model.graph.node[-1].input[2] = "own"
    onnx.save(model, tmp_path / "m.onnx")
    record = patch_onnx(tmp_path / "m.onnx", tmp_path / "out", r"norm\.1\.weight", dims=(2,))
    assert bool(record.onnx_patch.splits) == merged
    x = {"x": np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)}
    old, new = (
        onnxruntime.InferenceSession(p).run(None, x)[0]
        for p in (tmp_path / "m.onnx", tmp_path / "out" / "m.onnx")
    )
    assert (new[:, 2] == 0).all()
    np.testing.assert_array_equal(np.delete(new, 2, 1), np.delete(old, 2, 1))


def test_nodes_in_any_order_are_read_as_onnxruntime_reads_them(exported, tmp_path):
    """Its conversion to float16 writes those of blocked operators behind all others."""
    path, model = exported("bert", "legacy-14", tmp_path / "source", config=False)
    graph = onnx.load(path)
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend(reversed(nodes))
    onnx.save(graph, path)
    patch_onnx(path, tmp_path / "out")
    expected = _torch(_edited(model, MODELS["bert"].output))
    np.testing.assert_allclose(_run(tmp_path / "out" / "model.onnx"), expected, atol=1e-4)


def test_a_conversion_that_others_read_too_is_refused(tmp_path):
    model = norm_chain()
    store_as(model, onnx.TensorProto.FLOAT16, {"norm.0.bias"})
    model.graph.node[-1].input[2] = "norm.0.bias"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(
        CheckpointError, match=r"converts norm\.0\.bias\.stored for other nodes too"
    ):
        patch_onnx(tmp_path / "m.onnx", tmp_path / "out", r"norm\.1\.weight", dims=(2,))


def test_entries_of_a_data_file_that_a_tensor_no_longer_uses_are_left_alone(tmp_path):
    """onnx and onnxruntime go by ``data_location``, and so does an edit."""
    model = norm_chain()
    for key, value in {"location": "gone.data", "offset": "0", "length": "32"}.items():
        model.graph.initializer[2].external_data.add(key=key, value=value)
    onnx.save(model, tmp_path / "m.onnx")
    patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(2,))
    session = onnxruntime.InferenceSession(tmp_path / "out" / "m.onnx")
    (found,) = session.run(None, {"x": np.arange(8, dtype=np.float32)[None]})
    assert found[0, 2] == 0


@pytest.mark.parametrize("numbers", [[1] * 7, [1] * 9, [2**16] * 8, [-1] * 8, []])
def test_int32_data_that_are_no_16_bit_floats_are_refused(tmp_path, numbers):
    model = norm_chain(onnx.TensorProto.FLOAT16)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.int32_data[:] = numbers
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=rf"m\.onnx: .*{tensor.name}"):
        patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(3,))
    assert not (tmp_path / "out").exists()


def _merged(model):
    """Put a graph into both branches of an If, as Optimum's decoder_model_merged.onnx has them."""
    graph = model.graph
    branches = []
    for tag in ("past", "first"):
        given = {name for node in graph.node for name in node.output}
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        for node in nodes:
            node.input[:] = [f"{n}_{tag}" if n in given else n for n in node.input]
            node.output[:] = [f"{n}_{tag}" for n in node.output]
        outputs = [
            onnx.helper.make_tensor_value_info(f"{o.name}_{tag}", 1, None) for o in graph.output
        ]
        branches.append(onnx.helper.make_graph(nodes, tag, [], outputs))
    chosen = onnx.helper.make_tensor_value_info("use_cache_branch", onnx.TensorProto.BOOL, [1])
    node = onnx.helper.make_node(
        "If", ["use_cache_branch"], [o.name for o in graph.output], name="optimum::if",
        then_branch=branches[0], else_branch=branches[1],
    )  # fmt: skip
    inputs = [*graph.input, chosen]
    whole = onnx.helper.make_graph([node], "all", inputs, graph.output, graph.initializer)
    return onnx.helper.make_model(whole, opset_imports=model.opset_import)


@pytest.mark.parametrize(
    ("beside", "remedy"),
    [
        (["model.onnx", "decoder_model.onnx"], "give decoder_model.onnx beside it"),
        (["model.onnx"], "give model.onnx beside it"),
        ([], "export the model without its cache"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--sites-pattern", _PATTERN]])
def test_layers_in_the_branches_of_an_if_are_told(tmp_path, refused, beside, remedy, options):
    path = tmp_path / "decoder_model_merged.onnx"
    onnx.save(_merged(norm_chain()), path)
    for name in beside:
        onnx.save(norm_chain(), tmp_path / name)
    out = tmp_path / "out"
    told = "its layers are in the branches of the If node 'optimum::if', where"
    for command in (["scan"], ["patch", "--dims", "1", "-o", out]):
        assert refused(*command, path, *options, says=f"{path}: {told}").endswith(remedy)
    assert not out.exists()


def test_norms_in_functions_are_told_and_found_when_they_are_inlined(tmp_path, refused):
    """As torch's first dynamo exporter wrote them; the operator's own name means nothing there."""
    model, path = norm_chain(), tmp_path / "model.onnx"
    names = ["bias", "weight", "x"]
    opsets = [*model.opset_import, onnx.helper.make_opsetid("my", 1)]
    norm = onnx.helper.make_node("LayerNormalization", names[::-1], ["y"])
    function = onnx.helper.make_function("my", norm.op_type, names, ["y"], [norm], opsets[:1])
    for node in model.graph.node:
        node.domain = "my"
        node.input[:] = reversed(node.input)
    called = onnx.helper.make_model(model.graph, opset_imports=opsets, functions=[function])
    onnx.save(called, path)
    refused("scan", path, says="its norms are in functions of the model, where surgeon edits none")
    refused("scan", path, "--sites-pattern", _PATTERN, says="inline_local_functions")
    onnx.save(inline_local_functions(called), path)
    assert open_onnx(path, _PATTERN).checkpoint.layers == 2


def test_a_graph_without_norms_is_told(tmp_path, refused):
    model, path = norm_chain(), tmp_path / "model.onnx"
    for node in model.graph.node:
        node.op_type = "GroupNormalization"
    onnx.save(model, path)
    refused("scan", path, says="it has no norm whose gain is stored in it; name the dense layers")


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_layers_that_end_in_quantized_weights_are_refused(exported, tmp_path, name):
    path, _ = exported(name, "legacy-14", tmp_path / "source")
    model = onnx.load(path)
    for tensor in [t for t in model.graph.initializer if t.dims and t.data_type == 1]:
        stored = [f"{tensor.name}.{part}" for part in ("quantized", "scale")]
        model.graph.initializer.extend([
            onnx.numpy_helper.from_array(np.ones(tensor.dims, np.int8), stored[0]),
            onnx.numpy_helper.from_array(np.float32(0.1), stored[1]),
        ])  # fmt: skip
        model.graph.initializer.remove(tensor)
        model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", stored, [tensor.name]))
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"DequantizeLinear, read .* quantize the result"):
        open_onnx(path)


def test_the_weights_of_a_quantized_file_count_among_its_parameters(tmp_path):
    model = norm_chain()
    weights = {"q": np.ones((8, 6), np.int8), "u": np.ones((4, 5), np.uint8), "at": np.arange(9)}
    for name, values in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "m.onnx")
    record = patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(3,))
    assert (record.parameters_changed, record.parameters_total) == (4, 4 * 8 + 8 * 6 + 4 * 5)


@pytest.mark.parametrize(("how", "fresh"), [("dynamo-external", False), ("legacy-17", True)])
def test_verify_and_restore_notice_a_changed_byte(exported, tmp_path, how, fresh):
    path, _ = exported("bert", how, tmp_path / "source", fresh=fresh)
    patch_onnx(path, tmp_path / "out")
    for name in ("model.onnx", "model.onnx.data"):
        file = tmp_path / "out" / name
        if not file.is_file():
            continue
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        assert not verify(tmp_path / "out").passed
        with pytest.raises(CheckpointError):
            restore(tmp_path / "out", tmp_path / "back")
        assert not (tmp_path / "back").exists()
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert verify(tmp_path / "out").passed


def test_the_command_line_scans_plans_and_patches_an_onnx_file(
    exported, tmp_path, capsys, json_of, refused
):
    path, _ = exported("bert", "legacy-17", tmp_path / "source", fresh=True)
    out = str(tmp_path / "out")
    assert json_of("scan", path)["layers"] == 2
    dims = json_of("patch", path, "--random", "2", "--dry-run")["dims"]
    listed = ",".join(map(str, dims))
    assert run(["patch", str(path), "--dims", listed, "--params", "gain", "-o", out, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["parameters_changed"] == 2
    assert "found by names of BERT" in captured.err
    assert "1 initializers are read elsewhere too" in captured.err
    refused("patch", path, "--dims", "3", "--no-onnx", "-o", out, says="--no-onnx")
    refused("eval", out, says="and config.json does not say what that is to be scored on")
    refused("scan", out, says="give that file in it")
    refused("scan", f"{out}/model.onnx", "--method", "ablation", says="--method")
