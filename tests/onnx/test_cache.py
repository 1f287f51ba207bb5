"""Exported graphs are kept: a second patch of an architecture exports nothing."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artifacts import edit_tensors, files_of, patch, run_python
from families import save_family
from safetensors.numpy import load_file, save_file
from task_models import save_model

from surgeon import open_checkpoint, verify
from surgeon.cli import run
from surgeon.errors import ExportError
from surgeon.onnx import cache
from surgeon.onnx.export import make_graph
from surgeon.progress import silent
from surgeon.torch_model import memory_left


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """An empty cache of this test's own; returns what is in it."""
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "cache"))
    return cache.list_graphs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model("classification", tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """The graph of the model without dimension 3, exported once, and what PyTorch gives."""
    folder = tmp_path_factory.mktemp("made") / "onnx"
    _patch(model, folder.with_name("patched"), onnx=False)
    patched = open_checkpoint(folder.with_name("patched"))
    folder.mkdir()
    return make_graph(patched, folder, "float32", silent, compare=True)


@pytest.fixture
def exports(model, made, monkeypatch):
    """The checkpoints that are exported; the model is not traced again each time."""
    exported = []

    def make(checkpoint, *given, **how):
        exported.append(checkpoint.directory)
        same = checkpoint.config == open_checkpoint(model).config
        return made if same else make_graph(checkpoint, *given, **how)

    monkeypatch.setattr("surgeon.onnx.export.make_graph", make)
    return exported


def _patch(model, output, *, onnx=True, **how):
    return patch(model, output, onnx=onnx, dims=(3,), **how)


def _with_other_values(model, folder):
    shutil.copytree(model, folder)
    edit_tensors(folder, lambda tensors: {name: 1.5 * values for name, values in tensors.items()})
    return folder


def test_other_weights_of_an_architecture_take_its_graph_without_torch(
    model, made, tmp_path, kept, monkeypatch
):
    with monkeypatch.context() as context:
        context.setattr("surgeon.onnx.export.make_graph", lambda *_given, **_how: made)
        first = _patch(model, tmp_path / "first")
    other = _with_other_values(model, tmp_path / "other")
    code = (
        "import sys\nfrom surgeon.cli import run\n"
        f"assert run(['patch', {str(other)!r}, '--dims', '5', '-o', 'out']) == 0\n"
        "assert not {'torch', 'transformers', 'onnxruntime'} & sys.modules.keys()"
    )
    done = run_python("-c", code, cwd=tmp_path)
    assert "of PyTorch with other weights (20" in done.stdout
    record = json.loads((tmp_path / "out/surgeon/record.json").read_bytes())["onnx"]
    assert record["graph_key"] == first.onnx["graph_key"] == kept()[0].key
    assert record["parity"] == json.loads(json.dumps(first.onnx["parity"]))
    assert first.onnx["parity"]["weights"] == (first.files["onnx/model.onnx_data"].after.blake3,)
    assert verify(tmp_path / "out").passed
    fresh = _patch(other, tmp_path / "fresh", fresh=True)
    assert fresh.onnx["parity"]["weights"] != first.onnx["parity"]["weights"]
    graphs = [files_of(tmp_path / name / "onnx")["model.onnx"] for name in ("out", "fresh")]
    assert graphs[0] == graphs[1]


def test_what_an_export_depends_on_is_in_the_key(model, tmp_path, monkeypatch):
    keys = {cache.graph_key(open_checkpoint(model), dtype) for dtype in ("float32", "float16")}
    other = _with_other_values(model, tmp_path / "other")
    assert cache.graph_key(open_checkpoint(other), "float32") in keys  # not the values
    for name, old, new in (
        ("config.json", '"num_attention_heads": 2', '"num_attention_heads": 4'),
        ("tokenizer_config.json", "{", '{"model_max_length": 8, '),
    ):
        path = other / name
        path.write_text(path.read_text().replace(old, new, 1))
        keys.add(cache.graph_key(open_checkpoint(other), "float32"))
    monkeypatch.setattr(cache, "_LIBRARIES", ("torch",))
    keys.add(cache.graph_key(open_checkpoint(model), "float32"))
    assert len(keys) == 5


@pytest.mark.parametrize("damage", [lambda c: c[:0], lambda c: c[:-9], lambda c: b"x" * len(c)])
def test_a_damaged_graph_is_exported_anew(model, tmp_path, kept, exports, damage):
    key = _patch(model, tmp_path / "a").onnx["graph_key"]
    path = cache.graphs_folder() / f"{key}.graph.zip"
    path.write_bytes(damage(path.read_bytes()))
    for name, exported in (("b", 2), ("c", 2)):
        _patch(model, tmp_path / name)
        assert len(exports) == exported


def test_whatever_byte_of_a_kept_graph_is_changed_it_is_damaged_and_no_error(made, kept):
    cache.keep_graph("key", replace(made[0], model=b"graph"))
    path = cache.graphs_folder() / "key.graph.zip"
    whole = path.read_bytes()
    damaged = 0
    for place in range(len(whole) - 200, len(whole)):  # the directory, which zipfile reads first
        for flipped in (1, 8):
            changed = bytes([whole[place] ^ flipped])
            path.write_bytes(whole[:place] + changed + whole[place + 1 :])
            if kept()[0].model == "(damaged)":
                damaged += 1
                assert cache.find_graph("key") is None
    assert damaged > 50


@pytest.mark.slow
def test_weights_that_are_loaded_otherwise_are_not_given_a_kept_graph(tmp_path, kept, monkeypatch):
    """The files have the embeddings twice, and transformers ties them where they are equal."""
    for name, shift in (("equal", 0), ("unequal", 1)):
        source = tmp_path / name
        save_family("gpt2", source, layers=1)
        tensors = load_file(source / "model.safetensors")
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + np.float32(shift)
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    patch(tmp_path / "equal", tmp_path / "a", onnx=True)
    assert len(kept()) == 1

    def refuse(*_given, **_how):
        raise ExportError("exported anew")

    monkeypatch.setattr("surgeon.onnx.export.make_graph", refuse)
    patch(tmp_path / "equal", tmp_path / "b", onnx=True)
    with pytest.raises(ExportError, match="exported anew"):
        patch(tmp_path / "unequal", tmp_path / "c", onnx=True)


def test_weights_that_float16_cannot_hold_are_refused_by_name(model, tmp_path):
    """They would be infinities, which nothing shows where nothing is compared with PyTorch."""
    large = _with_other_values(model, tmp_path / "large")
    edit_tensors(large, lambda tensors: {name: 1e7 * values for name, values in tensors.items()})
    says = (
        r"large/model.safetensors: .*\.weight holds \d+ of \d+ values that float16 cannot hold; l"
    )
    with pytest.raises(ExportError, match=says):
        _patch(large, tmp_path / "other", dtype="float16", parity=False)


def test_the_commands_list_and_clear_and_the_size_is_bounded(
    model, made, tmp_path, kept, exports, monkeypatch, capsys
):
    _patch(model, tmp_path / "a")
    capsys.readouterr()
    assert run(["cache", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["graphs"]
    assert entry["task"] == "classification"
    assert entry["bytes"] < 100_000
    monkeypatch.setattr(cache, "_MOST_BYTES", entry["bytes"] * 3 // 2)
    cache.keep_graph("another", replace(made[0], name="newer"))
    assert [graph.model for graph in kept()] == ["newer"]
    assert run(["cache", "list"]) == 0
    assert "newer" in capsys.readouterr().out
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("1 graphs removed from")
    assert kept() == ()
    assert not [*cache.graphs_folder().iterdir()]


def test_a_cache_that_cannot_be_written_to_fails_no_patch(
    model, tmp_path, monkeypatch, caplog, exports
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "file"))
    _patch(model, tmp_path / "out")
    assert len(exports) == 1
    assert "the graph was not kept" in caplog.text


def test_a_cache_that_others_may_only_read_gives_its_graphs(
    model, tmp_path, kept, exports, monkeypatch
):
    _patch(model, tmp_path / "a")

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr("os.utime", refuse)
    _patch(model, tmp_path / "b")
    assert len(exports) == 1


def test_a_model_larger_than_memory_is_not_compared_and_it_is_said(
    model, made, tmp_path, kept, monkeypatch, capsys
):
    def make(*_given, compare, **_how):
        return made if compare else (made[0], [])

    monkeypatch.setattr("surgeon.onnx.half.memory_left", lambda: 1000)
    monkeypatch.setattr("surgeon.onnx.export.make_graph", make)
    assert run(["patch", str(model), "--dims", "3", "-o", str(tmp_path / "out")]) == 0
    assert "not compared with PyTorch" in capsys.readouterr().out
    monkeypatch.setattr("surgeon.onnx.half.memory_left", lambda: math.inf)
    assert _patch(model, tmp_path / "compared").onnx["parity"] is not None


def test_memory_that_a_container_can_free_is_left(monkeypatch):
    group = "/sys/fs/cgroup/memory"
    files = {
        "/proc/meminfo": "MemFree: 1 kB\nMemAvailable: 9 kB\n",
        f"{group}.max": "5000\n",
        f"{group}.current": "4000\n",
        f"{group}.stat": "anon 1\ninactive_file 500\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda path, *_: files[str(path)])
    assert memory_left() == 1500
    files[f"{group}.max"] = "max\n"
    assert memory_left() == 9 * 1024
    files.clear()  # as on macOS, which says what is built in alone
    assert 9 * 1024 < memory_left() < math.inf
