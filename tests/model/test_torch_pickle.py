import io
import os
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.errors import CheckpointError
from surgeon.model import torch_pickle, unpickle
from surgeon.model.tensors import numpy_dtype
from surgeon.model.torch_pickle import read_directory
from surgeon.model.unpickle import Call


def _saved(state, *, legacy=False):
    content = io.BytesIO()
    torch.save(state, content, _use_new_zipfile_serialization=not legacy)
    return content.getvalue()


def _read(content, block=4096):
    parts = []

    def part(start, length):
        parts.append(length)
        return content[start : start + length]

    found = read_directory("x.bin", len(content), part, block=block, on_disk=False)
    return found, parts


_LARGE = torch.arange(2000, dtype=torch.float32).reshape(100, 20)
_STATE = {
    "plain": torch.randn(3, 4),
    "half": torch.randn(5).half(),
    "bfloat": torch.randn(2, 2).bfloat16(),
    "whole": torch.arange(7),
    "flag": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "row": _LARGE[7],
    "rows": _LARGE[2:5],
    "parameter": torch.nn.Parameter(torch.ones(3)),
}


@pytest.mark.parametrize("legacy", [False, True])
def test_each_tensor_lies_where_the_directory_says(legacy):
    state = torch.nn.Linear(3, 4).state_dict() | _STATE | {"tied": _STATE["plain"]}
    content = _saved(state, legacy=legacy)
    found, _ = _read(content)
    assert list(found.tensors) == list(state)
    for name, info in found.tensors.items():
        if info.size:
            head = found.heads[name]
            assert head.is_right(content[head.start : head.end])
            assert not head.is_right(content[head.start + 1 : head.end + 1])
        expected = state[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        assert content[info.start : info.end] == expected.tobytes()
        assert info.shape == tuple(state[name].shape)
    assert numpy_dtype(found.tensors["bfloat"].dtype).itemsize == 2
    assert found.tensors["tied"].start == found.tensors["plain"].start


def test_an_archive_whose_checksums_were_not_computed_is_read():
    torch.serialization.set_crc32_options(False)
    try:
        content = _saved(_STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    assert list(_read(content)[0].tensors) == list(_STATE)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_fetched_is_the_directory_and_not_the_tensors(legacy):
    content = _saved({"large": torch.zeros(2**20), "small": torch.ones(4)}, legacy=legacy)
    _, parts = _read(content)
    assert sum(parts) <= 3 * 4096


def test_a_tensor_that_does_not_lie_in_one_piece_is_known_as_such():
    found, _ = _read(_saved({"turned": _LARGE.t(), "column": _LARGE[:, :1].t(), "row": _LARGE[1]}))
    assert found.strides.keys() == {"turned", "column"}
    assert found.tensors["turned"].shape == (20, 100)


class _Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_by_its_name_and_not_run(tmp_path, legacy):
    content = _saved({"a": torch.ones(2), "b": _Runs(str(tmp_path / "run"))}, legacy=legacy)
    with pytest.raises(CheckpointError, match=r"x.bin: damaged, or holds more .*(posix|nt).mkdir"):
        _read(content)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "state", [[torch.ones(2)], torch.ones(2), {"a": {"b": torch.ones(2)}}, {"step": 3}, {1: 2}]
)
def test_what_is_no_flat_map_of_tensors_is_refused(state):
    with pytest.raises(CheckpointError, match="flat map of tensors"):
        _read(_saved(state))


def _rewritten(content, change):
    """A zip archive whose entries are what ``change`` makes of each."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.infolist():
            raw, kind = change(entry.filename, old.read(entry))
            new.writestr(zipfile.ZipInfo(entry.filename), raw, kind)
    return packed.getvalue()


def _packed(_name, raw):
    return raw, zipfile.ZIP_DEFLATED


def _memo(number):
    return b"\x80\x02}r" + number.to_bytes(4, "little") + b"."


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_packed, "is compressed"),
        (lambda n, raw: (raw[:-4] if "/data/" in n else raw, 0), "its 8 numbers are not in the"),
        (lambda n, raw: (b"big" if n.endswith("byteorder") else raw, 0), "in the byte order b'b"),
        (lambda n, raw: (b"\x80\x02." if n.endswith(".pkl") else raw, 0), "damaged"),
        (lambda n, raw: (b"\x80\x02cos\nsystem\n." if n.endswith(".pkl") else raw, 0), "os.system"),
        (lambda n, raw: (raw.replace(b"K\x08", b"K\x09") if n.endswith("l") else raw, 0), "its 9"),
    ],
)
def test_an_archive_that_is_not_as_torch_writes_it_is_refused(change, complaint):
    with pytest.raises(CheckpointError, match=complaint):
        _read(_rewritten(_saved({"a": torch.arange(8.0)}), change))


def test_a_number_in_a_pickle_allocates_nothing():
    content = _saved({"a": torch.ones(2)})
    change = lambda name, raw: (_memo(2**31 - 1) if name.endswith(".pkl") else raw, 0)  # noqa: E731
    found, _ = _read(_rewritten(content, change))
    assert found.tensors == {}
    huge = b"\x80\x02X" + (2**31 - 1).to_bytes(4, "little") + b"."
    with pytest.raises(CheckpointError, match=r"damaged|more than"):
        _read(huge + bytes(100))


def test_a_directory_over_the_bound_is_refused_unread(monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as new:
        new.writestr("archive/data.pkl", bytes(17 * 2**20))
    with pytest.raises(CheckpointError, match="too large"):
        _read(archive.getvalue())
    sent = []

    def part(start, length):
        sent.append(length)
        return (b"\x80\x02X" + (2**31 - 1).to_bytes(4, "little")).ljust(length, b"N")

    with pytest.raises(CheckpointError, match="more than 16777216 bytes"):
        read_directory("x.bin", 2**40, part, block=4096, on_disk=False)
    assert sum(sent) == 4096
    monkeypatch.setattr(unpickle, "_MOST_STEPS", 100)
    with pytest.raises(CheckpointError, match="more than 100 instructions"):
        _read(b"\x80\x02" + b"N" * 200)


@pytest.mark.parametrize("legacy", [False, True])
@settings(max_examples=60)
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_damage_is_a_line_or_leaves_every_tensor_inside_the_file(legacy, place, value, cut):
    content = bytearray(_saved({"a": torch.arange(6.0), "b": torch.ones(2, 3)}, legacy=legacy))
    at = int(place * (len(content) - 1))
    content[at] = value
    content = bytes(content[:at] if cut else content)
    try:
        found, _ = _read(content)
    except CheckpointError:
        return
    for info in found.tensors.values():
        assert 0 <= info.start <= info.end <= len(content)


def test_an_old_pickle_that_torch_did_not_write_is_refused():
    with pytest.raises(CheckpointError, match="damaged, or holds more than plain"):
        _read(b"\x80\x02K\x01.")


def test_a_fault_of_the_disk_or_the_network_is_not_blamed_on_the_file():
    def part(start, length):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        read_directory("x.bin", 2**20, part, block=4096, on_disk=False)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        *((4, (1,)), ((4,), 1), ((4, 4), (1,)), ((-4,), (1,)), ((True,), (1,))),
        *(((1,) * 65, (1,) * 65), ((2**64,), (0,))),  # a product of many would take forever
    ],
)
def test_a_shape_that_is_none_is_refused(monkeypatch, shape, strides):
    storage = torch_pickle._Storage("0", "F32", 4)
    call = Call("torch._utils _rebuild_tensor_v2", (storage, 0, shape, strides, False, {}))
    monkeypatch.setattr(torch_pickle, "_of_sequence", lambda _: ({"a": call}, {}))
    with pytest.raises(CheckpointError, match=r"x\.bin: tensor a.*( is made by|invalid; fetch)"):
        _read(bytes(100))
