import itertools
import json
import struct

import numpy as np
import pytest
from artifacts import assert_undone, patch
from artifacts import safetensors_bytes as _raw
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from surgeon.errors import CheckpointError
from surgeon.model.tensors import BITS, open_safetensors


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


def test_every_dtype_has_the_size_that_the_reference_says_and_a_file_cut_later_is_noticed(tmp_path):
    path, ends = tmp_path / "x.safetensors", list(itertools.accumulate(BITS.values(), initial=0))
    spans = zip(BITS, ends, ends[1:], strict=False)
    header = {dtype: _entry(start, end, [8], dtype) for dtype, start, end in spans}
    path.write_bytes(_raw(header, bytes(ends[-1])))
    file = open_safetensors(path)
    with safe_open(path, "numpy") as reference:
        assert set(reference.keys()) == file.tensors.keys() == BITS.keys()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="shorter than when it was opened"):
        list(file.pieces([*BITS][-1]))


_ONE = save({"a": np.zeros(8)})


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (_raw({"a": _entry(0, 8)}, b"\0" * 4), "truncated"),
        (_raw({"a": _entry(0, 8)}, b"\0" * 12), "truncated or damaged"),
        (_raw({"a": _entry(0, 8), "b": _entry(4, 12)}, b"\0" * 12), "overlap"),
        (_raw({"a": _entry(4, 8)}, b"\0" * 8), "gap"),
        (_raw({"a": _entry(0, 8, [2**62, 4])}, b"\0" * 8), "claims shape"),
        (_raw({"a": _entry(0, 8, [-2])}, b"\0" * 8), "malformed"),
        (_raw({"a": _entry(0, 8, [True, 2])}, b"\0" * 8), "malformed"),
        (_raw({"a": _entry(0, 8, [2] + [1] * 64)}, b"\0" * 8), "malformed"),
        (_raw({"a": _entry(0, 8, dtype="F99")}, b"\0" * 8), "unknown dtype"),
        (_raw({"a": [1, 2]}), "malformed"),
        (_raw({"__metadata__": {"a": 1}}), "__metadata__"),
        (_raw([]), "not a JSON object"),
        (_raw(b"{"), "not valid JSON"),
        (_raw(b'{"a": 1, "a": 2}'), "twice"),
        (_raw(b"[" * 100_000), "not valid JSON"),
        (_raw(b'\xff"'), "not valid JSON"),
        (_raw(b'{"\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}'), "surrogate"),
        *(
            (struct.pack("<Q", length) + b"{}", "truncated or no safetensors file")
            for length in (2**63, 2**64 - 1, 10_000, 200_000_000)
        ),
        *((_ONE[:cut], "too short|truncated") for cut in (0, 7, 8, 20, -1)),
    ],
)
def test_a_file_that_lies_or_is_cut_is_refused(tmp_path, raw, complaint):
    (tmp_path / "x.safetensors").write_bytes(raw)
    with pytest.raises(CheckpointError, match=complaint):
        open_safetensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_metadata_that_is_null_or_empty_is_read_as_the_reference_does(tmp_path, metadata):
    header = {"__metadata__": metadata, "a": _entry(0, 8)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(_raw(header, np.ones(2, np.float32).tobytes()))
    file = open_safetensors(path)
    with safe_open(path, "numpy") as reference:
        assert dict(file.metadata) == (reference.metadata() or {})
        np.testing.assert_array_equal(file.read("a"), reference.get_tensor("a"))


def test_a_patch_keeps_metadata_that_is_null(source, tmp_path):
    file = source / "model.safetensors"
    raw = file.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    before = _raw({**json.loads(raw[8:end]), "__metadata__": None}, raw[end:])
    file.write_bytes(before)
    patch(source, tmp_path / "out", dims=(3,))
    after = (tmp_path / "out" / "model.safetensors").read_bytes()
    header = len(before) - len(raw) + end
    assert after != before
    assert after[:header] == before[:header]
    assert_undone(tmp_path / "out", source)


def test_a_packed_dtype_cannot_be_read_and_the_tensor_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"packed": np.zeros(4, dtype=np.int32)}, path)
    with pytest.raises(CheckpointError, match="packed is stored as I32"):
        open_safetensors(path).read("packed")
