"""A ``pytorch_model.bin``, read in place: where each tensor's bytes lie, and nothing of it run.

A file of PyTorch is a pickle that names tensors, and their storages: entries of a zip archive, or
in older files one after the other behind the pickle (``torch/serialization.py``). The pickle is
read without running it, and the tensors as those of any other file, one at a time and by offset.
"""

from __future__ import annotations

import errno
import io
import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeAlias
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint.dtypes import BITS
from surgeon.checkpoint.lfs import POINTER_BYTES, refuse_pointer
from surgeon.checkpoint.safetensors_file import PIECE, SafetensorsFile, TensorInfo, editable_dtype
from surgeon.checkpoint.unpickle import Call, Global, read_pickle
from surgeon.errors import CheckpointError

_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "complex64": "C64",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
    "UntypedStorage": "U8",
}  # fmt: skip
# How the safetensors library orders the tensors of a file that it writes, the first one last.
_ORDER = (
    "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16", "I32", "U32", "F32",
    "C64", "F64", "I64", "U64",
)  # fmt: skip
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LOCAL_HEADER = 30  # bytes, of a zip's entry, before its name
# A tied weight has up to five names; strides of 0 make any number of tensors of a few bytes.
_MOST_COPIES = 64

_Places: TypeAlias = Mapping[str, tuple[int, int]]
"""Where each storage lies in the file: the first byte, and the one after its last."""


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    first: int = 0  # element of it, where only a part is meant


@dataclass(frozen=True)
class PickleFile:
    """The tensors of a pickle where they lie in it.

    ``strides``, in elements, are those of tensors whose elements lie in another order, such as
    transposed ones: of these the offsets in ``tensors`` hold the first element and the last.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    strides: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one floating-point tensor as an array of its own dtype."""
        info = self.tensors[name]
        dtype = editable_dtype(str(self.path), info)
        return np.frombuffer(b"".join(self.pieces(name)), dtype=dtype).reshape(info.shape)

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes, of any dtype, in pieces of bounded length."""
        info = self.tensors[name]
        if name not in self.strides:
            yield from SafetensorsFile(self.path, self.tensors, {}).pieces(name)
            return
        size = BITS[info.dtype] // 8
        lying = np.memmap(self.path, f"V{size}", "r", info.start, (info.end - info.start) // size)
        view = np.lib.stride_tricks.as_strided(
            lying, info.shape, [stride * size for stride in self.strides[name]], writeable=False
        )
        pieces: Any = np.nditer(
            view, flags=["external_loop", "buffered"], order="C", buffersize=PIECE // size
        )
        yield from (piece.tobytes() for piece in pieces)

    def write_safetensors(self, path: Path) -> None:
        """Write the tensors as one safetensors file, tensors that share storage each in full.

        It is the file that the safetensors library would write, of which not more than one piece
        of one tensor is in memory.
        """
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        names = sorted(self.tensors, key=lambda n: (-_ORDER.index(self.tensors[n].dtype), n))
        for name in names:
            info = self.tensors[name]
            start, end = end, end + info.size * BITS[info.dtype] // 8
            header[name] = {
                "dtype": info.dtype,
                "shape": info.shape,
                "data_offsets": (start, end),
            }
        raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        try:
            with path.open("wb") as file:
                file.write(len(raw).to_bytes(8, "little") + raw)
                for name in names:
                    file.writelines(self.pieces(name))
        except OSError as error:  # of which a failed write does not say the file
            error.filename = error.filename or str(path)
            raise


def open_pickle(path: Path) -> PickleFile:
    """Find the tensors of a pickle.

    Raises:
        CheckpointError: the file is no PyTorch pickle, carries more than tensors, or holds a
            dtype that safetensors cannot hold.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(POINTER_BYTES)
        refuse_pointer(str(path), start)
        try:
            state, places = (_of_archive if start.startswith(b"PK") else _of_sequence)(file)
        except Exception as error:  # whatever the bytes lead to
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of an odd offset
                raise
            raise CheckpointError(
                f"{path}: damaged, or holds more than plain tensors "
                f"({type(error).__name__}: {' '.join(str(error).split())}): a pickle can carry "
                "code, so that nothing else is loaded from it; fetch it again, or save the model "
                "as safetensors"
            ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Call) for v in state.values()):
        raise CheckpointError(
            f"{path}: holds something other than a flat map of tensors; save model.state_dict()"
        )
    tensors, strides = {}, {}
    for name, call in state.items():
        label = f"{path}: tensor {name if isinstance(name, str) else repr(name)}"
        tensors[name], inner = _tensor(label, name, call, places)
        if inner is not None:
            strides[name] = inner
    total = sum(info.size * BITS[info.dtype] // 8 for info in tensors.values())
    if total > _MOST_COPIES * size:
        raise CheckpointError(
            f"{path}: its tensors claim {total:,} bytes and the file has {size:,}: they are more "
            f"than {_MOST_COPIES} copies of it; save each tensor of model.state_dict() as its "
            "clone()"
        )
    return PickleFile(path, tensors, strides)


def _of_archive(file: IO[bytes]) -> tuple[Any, _Places]:
    """Read the pickle of a zip archive, and find its storages."""
    entries = {info.filename: info for info in ZipFile(file).infolist()}
    (pickle,) = (name for name in entries if name.endswith("/data.pkl"))
    folder = pickle.removesuffix("data.pkl")
    places = {name: _place(file, info) for name, info in entries.items()}

    def content(name: str) -> bytes:
        start, end = places[name]
        file.seek(start)
        return file.read(end - start)

    if folder + "byteorder" in places and content(folder + "byteorder") != b"little":
        raise ValueError("numbers of another byte order")
    state = read_pickle(io.BytesIO(content(pickle)), _storage)
    data = folder + "data/"
    stored = {name: place for name, place in places.items() if name.startswith(data)}
    return state, {name.removeprefix(data): place for name, place in stored.items()}


def _place(file: IO[bytes], info: ZipInfo) -> tuple[int, int]:
    """Return where an entry of a zip archive has its bytes, which PyTorch does not compress."""
    if info.compress_type != ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename} is compressed")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    start = info.header_offset + _LOCAL_HEADER + name + extra
    if start + info.file_size > file.seek(0, io.SEEK_END):
        raise ValueError(f"{info.filename} is cut off")
    return start, start + info.file_size


def _of_sequence(file: IO[bytes]) -> tuple[Any, _Places]:
    """Read an older file: pickles one after the other, and the storages behind them."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        known: dict[str, _Storage] = {}

        def storage(identity: Any) -> _Storage:
            found = _storage(identity)
            known.setdefault(found.key, found)
            return found

        magic, protocol, system, state, keys = (read_pickle(view, storage) for _ in range(5))
        if (magic, protocol) != (_MAGIC, _PROTOCOL) or system.get("little_endian") is False:
            raise ValueError("no file of torch.save of this byte order")
        places = {}
        for key in keys:
            size = int.from_bytes(view.read(8), "little") * BITS[known[key].dtype] // 8
            start = view.tell()
            view.seek(size, io.SEEK_CUR)  # ValueError beyond the end
            places[key] = start, start + size
    return state, places


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", Global(kind), str(key), _, int(_), *view):
            pass
        case _:
            raise ValueError("an object that is no storage")
    name = kind.rpartition(" ")[2]
    dtype = _STORAGES.get(name, name)  # a tensor of another is refused by its name
    match view:
        case [(_, int(first), int(_))]:
            return _Storage(key, dtype, first)
        case _:
            return _Storage(key, dtype)


def _tensor(
    label: str, name: object, call: Call, places: _Places
) -> tuple[TensorInfo, tuple[int, ...] | None]:
    """Return a tensor, and its strides if its elements do not lie in order."""
    if not isinstance(name, str):
        raise CheckpointError(f"{label}: its name is no text; save model.state_dict()")
    further: list[Any] = []
    match call:
        case Call("torch._tensor _rebuild_from_type_v2", (Global(function), _, tuple(inner), _)):
            return _tensor(label, name, Call(function, inner), places)  # with attributes of its own
        case Call(
            "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state",
            (Call() as inner, *_),
        ):
            return _tensor(label, name, inner, places)
        case Call("torch._utils _rebuild_meta_tensor_no_storage"):
            raise CheckpointError(
                f"{label} holds no data (it is on the meta device); save the model again without "
                "offloading"
            )
        case Call("torch._utils _rebuild_tensor", (_Storage() as storage, first, shape, strides)):
            dtype = storage.dtype
        case Call(
            "torch._utils _rebuild_tensor_v2",
            (_Storage() as storage, first, shape, strides, _, _, *further),
        ):
            dtype = storage.dtype
        case Call(
            "torch._utils _rebuild_tensor_v3",
            (_Storage() as storage, first, shape, strides, _, _, Global(kind), *further),
        ):
            dtype = _DTYPES.get(kind.removeprefix("torch "), kind)
        case _:
            what = call.function.rpartition(" ")[2]
            raise CheckpointError(f"{label} is made by {what}, and is not plain numbers")
    if dtype not in BITS or any(further):  # the latter: numbers to be negated or conjugated
        raise CheckpointError(f"{label} is {dtype}, not plain numbers")
    numbers = (first, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise CheckpointError(f"{label}: its shape, strides or offset are none; fetch it again")
    info = TensorInfo(name, dtype, tuple(shape), 0, 0)
    return _located(label, info, storage.first + first, strides, places.get(storage.key))


def _located(
    label: str,
    info: TensorInfo,
    first: int,
    strides: tuple[int, ...],
    place: tuple[int, int] | None,
) -> tuple[TensorInfo, tuple[int, ...] | None]:
    """Find the bytes of a tensor whose elements begin with the ``first`` of a storage."""
    start, limit = place or (0, 0)
    size = BITS[info.dtype] // 8
    last = first + sum((n - 1) * stride for n, stride in zip(info.shape, strides, strict=True))
    start, end = start + first * size, start + (last + 1) * size
    if info.size == 0:
        return replace(info, start=0, end=0), None
    if place is None or end > limit:
        raise CheckpointError(
            f"{label}: its {info.size:,} numbers are not in the file, which is damaged or cut off; "
            "fetch it again"
        )
    expected, in_order = 1, True
    for n, stride in zip(reversed(info.shape), reversed(strides), strict=True):
        in_order = in_order and (n == 1 or stride == expected)
        expected *= n
    return replace(info, start=start, end=end), None if in_order else strides
