import os

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

import surgeon.edit.files as transfer_module
from surgeon.edit.changes import BytePatch
from surgeon.edit.files import hash_file, transfer
from surgeon.errors import CheckpointError

_PAGE = 4096  # bytes


def _patch(content, offsets):
    where = np.array(sorted(offsets), dtype=np.int64)
    old = np.frombuffer(content, dtype=np.uint8)[where]
    return BytePatch(where, old), BytePatch(where, old ^ 0xFF)


@settings(max_examples=60)
@given(data=st.data())
def test_one_pass_copies_patches_and_hashes(tmp_path_factory, data):
    """Over sizes and offsets around the borders of pieces, against hashes of the whole."""
    folder = tmp_path_factory.mktemp("transfer")
    size = data.draw(st.integers(1, 4 * _PAGE), "size")
    content = np.random.default_rng(size).bytes(size)
    near = [at for n in range(5) for at in (n * _PAGE - 1, n * _PAGE) if 0 <= at < size]
    where = st.integers(0, size - 1) | st.sampled_from(near)
    offsets = data.draw(st.sets(where, max_size=20), "offsets")
    (folder / "a").write_bytes(content)
    old, new = _patch(content, offsets)
    expected = bytearray(content)
    for offset in offsets:
        expected[offset] ^= 0xFF
    with pytest.MonkeyPatch.context() as patch:
        pages = data.draw(st.integers(1, 3), "pages")
        patch.setattr(transfer_module, "_PIECE", pages * _PAGE)
        before, after = transfer(folder / "a", folder / "b", old, new)
        assert transfer(folder / "b", None, new, old) == (after, before)
    assert (folder / "b").read_bytes() == bytes(expected)
    assert (before.size, before.blake3) == (size, blake3(content).hexdigest())
    assert (after.size, after.blake3) == (size, blake3(bytes(expected)).hexdigest())
    assert hash_file(folder / "b") == after
    assert (folder / "a").read_bytes() == content


def test_an_empty_file_is_copied(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    before, after = transfer(tmp_path / "a", tmp_path / "deep" / "b")
    assert before == after == hash_file(tmp_path / "deep" / "b")


def test_a_source_that_does_not_hold_the_old_bytes_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    old, new = _patch(b"987654321x", {9})
    with pytest.raises(CheckpointError, match="changed while it was being read"):
        transfer(tmp_path / "a", tmp_path / "b", old, new)


def test_a_source_that_changes_during_the_copy_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(8 * _PAGE))
    monkeypatch.setattr(transfer_module, "_PIECE", _PAGE)
    written = transfer_module._copy

    def write_and_change(*arguments):
        written(*arguments)
        with (tmp_path / "a").open("r+b") as file:
            file.write(b"x")
        os.utime(tmp_path / "a", ns=(0, 0))

    monkeypatch.setattr(transfer_module, "_copy", write_and_change)
    with pytest.raises(CheckpointError, match="a: changed while it was being read"):
        transfer(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("how", ["fails", "copies nothing"])
def test_where_the_kernel_does_not_copy_the_bytes_are_written(tmp_path, monkeypatch, how):
    content = np.random.default_rng(0).bytes(5 * _PAGE + 7)
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(transfer_module, "_PIECE", _PAGE)
    calls = iter(range(100))

    def copy_some(source, target, count):
        if next(calls):
            if how == "copies nothing":
                return 0
            raise OSError(18, "Invalid cross-device link")
        return os.write(target, os.read(source, 10))

    monkeypatch.setattr(os, "copy_file_range", copy_some)
    before, after = transfer(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content
    assert before == after == hash_file(tmp_path / "b")
