import os

import numpy as np
import pytest
import torch

from surgeon.errors import CheckpointError
from surgeon.model import open_checkpoint
from surgeon.model.pickle_file import open_pickle
from surgeon.model.tensors import open_safetensors


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("code", "nothing else is loaded"),
        (b"not a pickle", "nothing else is loaded"),
        (b"", "damaged"),
        (b"PK\x03\x04", "damaged"),
        ({"a": 1}, "flat map of tensors"),
    ],
)
def test_what_is_no_pickle_of_tensors_is_refused_in_a_line_and_never_run(
    tmp_path, content, complaint
):
    path = tmp_path / "pytorch_model.bin"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a": _Bomb(tmp_path / "owned")} if content == "code" else content, path)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        open_pickle(path)
    assert str(caught.value).isprintable()  # no escape codes, and one line
    assert "weights_only" not in str(caught.value)  # which would be unsafe advice
    assert not (tmp_path / "owned").exists()


def test_a_git_lfs_pointer_is_told_from_weights(tmp_path):
    for name, reader in (("x.bin", open_pickle), ("x.safetensors", open_safetensors)):
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        (tmp_path / name).write_text(pointer)
        with pytest.raises(CheckpointError, match=f"{name}: is a git-LFS pointer.*git lfs pull"):
            reader(tmp_path / name)


def test_a_pickle_saved_on_cuda_is_read_on_the_cpu(antiberty):
    checkpoint = open_checkpoint(antiberty)
    state = torch.load(antiberty / "pytorch_model.bin", map_location="cpu", weights_only=True)
    for site in checkpoint.sites:
        np.testing.assert_array_equal(checkpoint.read(site.gain), state[site.gain].numpy())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e5m2])
def test_every_tensor_survives_the_conversion_bit_for_bit(tmp_path, dtype):
    shared = torch.randn(6, 4).to(dtype)
    state = {"tied": shared, "tied too": shared, "turned": shared.t(), "ids": torch.arange(5)}
    torch.save(state, tmp_path / "x.bin")
    pickled = open_pickle(tmp_path / "x.bin")
    pickled.write_safetensors(tmp_path / "x.safetensors")
    converted = open_safetensors(tmp_path / "x.safetensors")
    assert converted.metadata == {"format": "pt"}
    assert {n: (t.dtype, t.shape) for n, t in converted.tensors.items()} == {
        n: (t.dtype, t.shape) for n, t in pickled.tensors.items()
    }
    for name in ("tied", "tied too", "turned"):
        assert converted.read(name).tobytes() == pickled.read(name).tobytes()
        expected = state[name].contiguous().view(torch.uint8).numpy().tobytes()
        assert converted.read(name).tobytes() == expected


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"a": torch.ones(2), "b": torch.ones(3, device="meta")}, "b holds no data .*meta device"),
        ({"b": torch.nn.Parameter(torch.ones(3, device="meta"))}, "b holds no data .*meta device"),
        ({0: torch.ones(3)}, "tensor 0.*name is not text"),
        ({("a", 1): torch.ones(3)}, r"tensor \('a', 1\).*name is not text"),
        ({None: torch.ones(3)}, "tensor None.*name is not text"),
        ({"q": torch.ones(3, dtype=torch.complex128)}, "q is .*not plain numbers"),
    ],
)
def test_a_tensor_that_is_none_is_named_with_its_file(tmp_path, entry, complaint):
    path = tmp_path / "pytorch_model.bin"
    torch.save(entry, path)
    with pytest.raises(CheckpointError, match=f"{path}: .*{complaint}"):
        open_pickle(path)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "complex64"])
def test_every_dtype_that_safetensors_has_is_converted(tmp_path, dtype):
    values = torch.arange(4).to(getattr(torch, dtype))
    torch.save({"a": values}, tmp_path / "pytorch_model.bin")
    open_pickle(tmp_path / "pytorch_model.bin").write_safetensors(tmp_path / "x.safetensors")
    raw = b"".join(open_safetensors(tmp_path / "x.safetensors").pieces("a"))
    assert raw == values.numpy().tobytes()
