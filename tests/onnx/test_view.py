"""The ONNX half is a view of the safetensors half: its weights are those bytes, and no others."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from artifacts import edit_tensors, patch
from families import save_family
from onnx_exports import initializers
from task_models import each, save_model
from tiny import LLAMA, make_unequal

from surgeon import evaluate, open_checkpoint, restore, verify
from surgeon.console import show_record
from surgeon.edit.staging import _own_files
from surgeon.onnx.export import make_graph
from surgeon.onnx.weights import read_initializers
from surgeon.progress import silent
from surgeon.tasks.examples import Example, batch_examples

_GRAPH = Path("onnx/model.onnx")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A Llama in bfloat16 and two shards, patched."""
    folder = tmp_path_factory.mktemp("sharded")
    config = transformers.LlamaConfig(**{**LLAMA, "num_hidden_layers": 1})
    model = make_unequal(transformers.LlamaForCausalLM, config).to(torch.bfloat16)
    model.save_pretrained(folder / "model", max_shard_size="5KB")
    assert len([*(folder / "model").glob("*.safetensors")]) == 2
    patch(folder / "model", folder / "out", onnx=True)
    return folder / "out"


def _save_rounded(source, folder):
    """Save a model again with its weights in bfloat16."""
    shutil.copytree(source, folder)
    edit_tensors(folder, lambda tensors: {n: t.to(torch.bfloat16) for n, t in tensors.items()})


def _disk_usage(folder):
    """Bytes on the disk, each file once, as ``du`` counts."""
    found = {(s.st_dev, s.st_ino): s.st_blocks for s in map(Path.lstat, folder.rglob("*"))}
    return 512 * sum(found.values())


def _run(path, width=7):
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(batch_examples([Example((5, *range(6, 5 + width)))], names, 0)))


def test_an_artifact_takes_the_space_of_its_source(minilm, tmp_path):
    patch(minilm, tmp_path / "out", onnx=True, dims=(99, 157))
    assert _disk_usage(tmp_path / "out") <= 1.02 * _disk_usage(minilm)
    weights, data = tmp_path / "out/model.safetensors", tmp_path / "out/onnx/model.onnx_data"
    assert weights.samefile(data)
    assert not data.is_symlink()  # which onnx refuses
    assert (tmp_path / "out" / _GRAPH).stat().st_size < 100_000
    restore(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back/model.safetensors").is_symlink()


def test_every_weight_of_the_graph_is_the_checkpoint_s_tensor_by_its_name(sharded):
    model = onnx.load(sharded / _GRAPH, load_external_data=False)
    external = {t.name for t in model.graph.initializer if t.external_data}
    checkpoint = open_checkpoint(sharded)
    assert external == checkpoint.tensors.keys()
    onnx.checker.check_model(sharded / _GRAPH, full_check=True)
    for name, values in initializers(onnx.load(sharded / _GRAPH)).items():
        if name in external:
            assert values.dtype.name == "bfloat16"
            assert values.tobytes() == checkpoint.read(name).tobytes()
    vectors = {site.gain for site in checkpoint.sites}
    for name, values in read_initializers(sharded / _GRAPH, vectors).items():
        np.testing.assert_array_equal(values, checkpoint.read(name).astype(np.float32))
    assert {p.name for p in (sharded / "onnx").iterdir()} == {
        "model.onnx", "model.onnx_data", "model.onnx_data_1",
    }  # fmt: skip


def test_a_view_computes_what_a_standalone_file_does(sharded, tmp_path):
    nothing = {"dims": (0,), "mode": "scale", "factor": 1.0}
    patch(sharded, tmp_path / "out", onnx=True, standalone=True, **nothing)
    assert [p.name for p in (tmp_path / "out/onnx").iterdir()] == ["model.onnx"]
    for one, other in zip(_run(sharded / _GRAPH), _run(tmp_path / "out" / _GRAPH), strict=True):
        np.testing.assert_array_equal(one, other)
    graph = onnx.load(tmp_path / "out" / _GRAPH).graph
    stored = {tensor.name for tensor in graph.initializer}
    turned = [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in stored]
    assert {n.input[0] for n in turned} <= set(open_checkpoint(sharded).tensors)
    assert not any(n.op_type == "Cast" and n.input[0] in stored for n in graph.node)
    assert verify(tmp_path / "out").passed


@pytest.mark.parametrize("task", each("drift", "clm, of experts", "denoising", slow=["drift"]))
def test_eval_says_of_a_bfloat16_view_what_it_says_of_a_standalone_file(tmp_path, task):
    save_model(task, tmp_path / "full")
    _save_rounded(tmp_path / "full", tmp_path / "model")
    results = []
    for standalone in (False, True):
        out = tmp_path / f"out-{standalone}"
        patch(tmp_path / "model", out, onnx=True, standalone=standalone, dims=(3,))
        results.append(evaluate(out, controls=2))
    one, other = results
    assert one.patched == other.patched
    assert one.baseline == other.baseline
    assert one.patched.value != one.baseline.value


def test_an_edit_of_either_half_is_found_and_a_copy_has_both(sharded, tmp_path):
    copy = shutil.copytree(sharded, tmp_path / "copy")
    assert verify(sharded).passed
    assert verify(copy).passed
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    linked = shutil.copytree(sharded, tmp_path / "linked", symlinks=True)
    for folder, failing in ((copy, 1), (linked, 3)):  # linked: both names, and what it restores to
        data = folder / "onnx/model.onnx_data_1"
        content = bytearray(data.read_bytes())
        content[-1] ^= 1
        data.write_bytes(content)
        failed = [check.name for check in verify(folder).checks if not check.passed]
        assert "onnx/model.onnx_data_1" in failed
        assert len(failed) >= failing
    (name,) = {path.name for path in sharded.glob("*-00002-*.safetensors")}
    assert {name, f"{name} restores to the source"} <= set(failed)


def test_without_links_there_are_two_files(tiny, tmp_path, monkeypatch):
    def refuse(*_given, **_how):
        raise OSError(1, "no links here")

    patch(tiny("bert"), tmp_path / "linked", onnx=True)  # is kept: transformers gets links too
    monkeypatch.setattr(Path, "symlink_to", refuse)
    patch(tiny("bert"), tmp_path / "out", onnx=True)
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert verify(tmp_path / "out").passed


def test_force_replaces_an_artifact_with_linked_halves_and_no_other_links(tiny, tmp_path):
    out = tmp_path / "out"
    patch(tiny("bert"), out, onnx=True)
    assert (out / "model.safetensors").is_symlink()
    patch(tiny("bert"), out, onnx=True, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (out / "model.safetensors").unlink()
    (out / "model.safetensors").symlink_to(tiny("bert") / "model.safetensors")
    assert _own_files(out) is None


def test_tensors_at_odd_offsets_get_a_file_of_their_own_and_it_is_told(tiny, tmp_path, capsys):
    source = shutil.copytree(tiny("bert"), tmp_path / "odd")
    path = source / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.dumps(json.loads(content[8 : 8 + length])).encode()
    header += b" " * (3 - len(header) % 4)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    record = patch(source, tmp_path / "out", onnx=True)
    assert record.onnx["moved"] == ("model.safetensors",)
    show_record(record, tmp_path / "out", json=False)
    assert "model.safetensors do not lie at multiples" in capsys.readouterr().err
    patch(tiny("bert"), tmp_path / "even", onnx=True)
    onnx.checker.check_model(tmp_path / "out" / _GRAPH)
    for one, other in zip(*(_run(tmp_path / n / _GRAPH) for n in ("out", "even")), strict=True):
        np.testing.assert_array_equal(one, other)
    assert verify(tmp_path / "out").passed


@pytest.mark.parametrize(
    "name", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mixtral", "bart"))]
)
def test_a_graph_is_the_same_whether_the_weights_were_loaded_or_not(name, tmp_path, monkeypatch):
    save_family(name, tmp_path / "model", layers=1)
    checkpoint = open_checkpoint(tmp_path / "model")
    one, probes = make_graph(checkpoint, tmp_path, "float32", silent, compare=True)
    monkeypatch.setattr("surgeon.onnx.export.load_model", None)
    other, none = make_graph(checkpoint, tmp_path, "float32", silent, compare=False)
    assert one == other
    assert probes
    assert not none
