import json
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from surgeon import Recipe, make_plan, open_checkpoint, restore, write_artifact
from surgeon.errors import CheckpointError
from surgeon.model.safetensors_file import open_safetensors


def _write(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def _entry(start, end, shape=None, dtype="F32"):
    return {"dtype": dtype, "shape": shape or [(end - start) // 4], "data_offsets": [start, end]}


def test_tensors_read_are_those_of_the_reference_implementation(minilm):
    file = open_safetensors(minilm / "model.safetensors")
    reference = load_file(minilm / "model.safetensors")
    assert file.tensors.keys() == reference.keys()
    assert dict(file.metadata) == {"format": "pt"}
    for name, tensor in file.tensors.items():
        if tensor.dtype == "F32":
            np.testing.assert_array_equal(file.read(name), reference[name])


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(0, 4), max_size=3),
        max_size=6,
    )
)
def test_any_file_that_the_reference_writes_is_read(tmp_path_factory, shapes):
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    tensors = {name: np.random.default_rng(0).random(shape) for name, shape in shapes.items()}
    save_file(tensors, path)
    file = open_safetensors(path)
    assert {name: file.read(name).tobytes() for name in file.tensors} == {
        name: value.tobytes() for name, value in tensors.items()
    }


@pytest.mark.parametrize(
    ("header", "data", "complaint"),
    [
        ({"a": _entry(0, 8)}, b"\0" * 4, "truncated"),
        ({"a": _entry(0, 8)}, b"\0" * 12, "truncated or damaged"),
        ({"a": _entry(0, 8), "b": _entry(4, 12)}, b"\0" * 12, "overlap"),
        ({"a": _entry(4, 8)}, b"\0" * 8, "gap"),
        ({"a": _entry(0, 8, [2**62, 4])}, b"\0" * 8, "claims shape"),
        ({"a": _entry(0, 8, [-2])}, b"\0" * 8, "malformed"),
        ({"a": _entry(0, 8, [True, 2])}, b"\0" * 8, "malformed"),
        ({"a": _entry(0, 8, dtype="F99")}, b"\0" * 8, "unknown dtype"),
        ({"a": [1, 2]}, b"", "malformed"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ([], b"", "not a JSON object"),
        (b"{", b"", "not valid JSON"),
        (b'{"a": 1, "a": 2}', b"", "twice"),
        (b"[" * 100_000, b"", "not valid JSON"),
        (b'\xff"', b"", "not valid JSON"),
        (b'{"\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}', b"", "surrogate"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header, data, complaint):
    path = _write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(CheckpointError, match=complaint):
        open_safetensors(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_metadata_that_is_null_or_empty_is_read_as_the_reference_does(tmp_path, metadata):
    header = {"__metadata__": metadata, "a": _entry(0, 8)}
    path = _write(tmp_path / "x.safetensors", header, np.ones(2, np.float32).tobytes())
    file = open_safetensors(path)
    with safe_open(path, "numpy") as reference:
        assert dict(file.metadata) == (reference.metadata() or {})
        np.testing.assert_array_equal(file.read("a"), reference.get_tensor("a"))


def test_a_patch_keeps_metadata_that_is_null(tiny, tmp_path):
    source = shutil.copytree(tiny("bert"), tmp_path / "source")
    file = source / "model.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = {**json.loads(raw[8 : 8 + length]), "__metadata__": None}
    _write(file, header, raw[8 + length :])
    before = file.read_bytes()
    write_artifact(
        make_plan(open_checkpoint(source), Recipe(dims=(3,))), tmp_path / "out", onnx=False
    )
    after = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert after != before
    assert (
        after[: len(before) - len(raw) + 8 + length]
        == before[: len(before) - len(raw) + 8 + length]
    )
    restore(tmp_path / "out", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10_000, 200_000_000])
def test_a_header_longer_than_the_file_is_refused_before_it_is_read(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(CheckpointError, match="truncated or no safetensors file"):
        open_safetensors(path)


@pytest.mark.parametrize("cut", [0, 7, 8, 20, -1])
def test_a_truncated_file_is_refused(tmp_path, cut):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": np.zeros(8)})[:cut])
    with pytest.raises(CheckpointError, match=r"too short|truncated"):
        open_safetensors(path)


def test_a_packed_dtype_cannot_be_read_and_the_tensor_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"packed": np.zeros(4, dtype=np.int8)}, path)
    with pytest.raises(CheckpointError, match="packed is stored as I8"):
        open_safetensors(path).read("packed")
