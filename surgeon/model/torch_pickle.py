"""Where each tensor lies in a PyTorch pickle: its directory, read without torch, running nothing.

A file of PyTorch is a pickle that names tensors, and their storages: entries of a zip archive, or
in older files one after the other behind the pickle (``torch/serialization.py``). Both keep them
uncompressed, so that each tensor is at an offset of the file, on disk or on the Hub.
"""

from __future__ import annotations

import errno
import io
import math
import operator
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from surgeon.errors import CheckpointError
from surgeon.model.tensors import BITS, MAX_AXES, MAX_LENGTH, TensorInfo
from surgeon.model.unpickle import Call, Global, read_pickle

_MAX_DIRECTORY = 16 * 2**20  # bytes; a model of a thousand tensors takes some 200 thousand
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ZIP_START = b"PK\x03\x04"
_ALIGNMENT = 64  # of an entry's content in torch's archives
_LONG = 0xFFFFFFFF  # sizes and offsets from here on take a longer zip header
_LOCAL_HEADER = 30  # bytes, of a zip's entry, before its name
# A tied weight has up to five names; strides of 0 make any number of tensors of a few bytes.
_MOST_COPIES = 64

TORCH_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "complex64": "C64",
}  # fmt: skip
"""The names that the safetensors format has for PyTorch's dtypes."""

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
    "UntypedStorage": "U8",
}  # fmt: skip

# What bytes that are no such file may lead to, in zipfile, pickletools and here.
_FROM_BYTES = (
    zipfile.BadZipFile, struct.error, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, RuntimeError, EOFError, MemoryError,
)  # fmt: skip

Part: TypeAlias = Callable[[int, int], bytes]
"""Returns so many bytes of a file from an offset on, or as many as it has there."""


@dataclass(frozen=True)
class StorageHead:
    """The bytes ahead of a storage's content: if they are ``is_right``, that is where it lies.

    ``size`` is how many bytes the content has.
    """

    start: int
    end: int
    size: int
    is_right: Callable[[bytes], bool]


_Heads: TypeAlias = Mapping[str, StorageHead]


@dataclass(frozen=True)
class PickleDirectory:
    """The tensors of a pickle by name, each with the head of the storage it is in.

    ``strides``, in elements, are those of tensors whose elements lie in another order, such as
    transposed ones: of these the offsets in ``tensors`` hold the first element and the last.
    """

    tensors: Mapping[str, TensorInfo]
    heads: Mapping[str, StorageHead]
    strides: Mapping[str, tuple[int, ...]]


def read_directory(
    label: str, size: int, part: Part, *, block: int, on_disk: bool
) -> PickleDirectory:
    """Read where the tensors of a ``torch.save`` file lie.

    Args:
        label: what errors call the file.
        size: of the file, in bytes.
        part: what reads of it.
        block: how many bytes are read together.
        on_disk: whether reading costs nothing, so that where an entry of an archive begins is
            looked up; else it is where torch would put it, for the caller to check by the heads.

    Raises:
        CheckpointError: it is not one, is damaged, holds more than a flat map of plain tensors, or
            holds a dtype that safetensors cannot hold.
    """
    file = _DirectoryFile(label, size, block, part)
    try:
        zipped = file.read(len(_ZIP_START)) == _ZIP_START
        file.seek(0)
        state, heads = _of_archive(file, on_disk=on_disk) if zipped else _of_sequence(file)
        return _directory(label, state, heads, size)
    except CheckpointError:
        raise
    except (OSError, *_FROM_BYTES) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of an odd offset
            raise  # what the disk or the Hub says is not about the bytes
        raise CheckpointError(
            f"{label}: damaged, or holds more than plain tensors "
            f"({type(error).__name__}: {' '.join(str(error).split())}): a pickle can carry "
            "code, so that nothing else is loaded from it; fetch it again, or save the model "
            "as safetensors"
        ) from error


def _directory(label: str, state: Any, heads: _Heads, size: int) -> PickleDirectory:
    """Find the tensors that a pickle of a file of so many bytes names."""
    if not isinstance(state, dict) or not all(isinstance(v, Call) for v in state.values()):
        raise CheckpointError(
            f"{label}: holds something other than a flat map of tensors; save model.state_dict()"
        )
    tensors: dict[str, TensorInfo] = {}
    of_tensors, strides = {}, {}
    for name, call in state.items():
        called = f"{label}: tensor {name if isinstance(name, str) else repr(name)}"
        if not isinstance(name, str):
            raise CheckpointError(f"{called}: its name is not text; save model.state_dict()")
        view = _view(called, call)
        tensors[name] = info = TensorInfo(name, view.dtype, view.shape, 0, 0)
        if info.size == 0:
            continue
        head, element = heads.get(view.storage.key), BITS[view.dtype] // 8
        steps = ((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
        end = (view.first + sum(steps) + 1) * element
        if head is None or end > min(head.size, size - head.end):
            raise CheckpointError(
                f"{called}: its {info.size:,} numbers are not in the file, which is damaged or cut "
                "off; fetch it again"
            )
        start = head.end + view.first * element
        tensors[name] = replace(info, start=start, end=head.end + end)
        of_tensors[name] = head
        if not _is_in_order(view):
            strides[name] = view.strides
    total = sum(info.size * BITS[info.dtype] // 8 for info in tensors.values())
    if total > _MOST_COPIES * size:
        raise CheckpointError(
            f"{label}: its tensors claim {total:,} bytes and the file has {size:,}: they are more "
            f"than {_MOST_COPIES} copies of it; save each tensor of model.state_dict() as its "
            "clone()"
        )
    return PickleDirectory(tensors, of_tensors, strides)


class _DirectoryFile(io.RawIOBase):
    """The parts of a file that its directory takes, read in blocks, and no more than a bound."""

    def __init__(self, label: str, size: int, block: int, part: Part) -> None:
        self._label, self._size, self._block, self._part = label, size, block, part
        self._at = 0
        self._blocks: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what is there: of one block, if that is enough, else what is missing at once."""
        wanted = min(len(buffer), max(0, self._size - self._at))
        first, at = divmod(self._at, self._block)
        if wanted <= io.DEFAULT_BUFFER_SIZE:  # what is read ahead of its use is not worth a block
            wanted = min(wanted, self._block - at)
        last = (self._at + max(wanted, 1) - 1) // self._block
        new = [number for number in range(first, last + 1) if number not in self._blocks]
        if (len(self._blocks) + len(new)) * self._block > _MAX_DIRECTORY + 2 * self._block:
            raise CheckpointError(
                f"{self._label}: its directory has more than {_MAX_DIRECTORY} bytes; no model's has"
            )
        if new and wanted:
            start = new[0] * self._block
            raw = self._part(start, min((new[-1] + 1) * self._block, self._size) - start)
            for number in range(new[0], new[-1] + 1):
                begin = (number - new[0]) * self._block
                self._blocks[number] = raw[begin : begin + self._block]
        held = b"".join(self._blocks.get(number, b"") for number in range(first, last + 1))
        found = held[at : at + wanted]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    length: int
    first: int = 0  # element of it, where only a part is meant


def _of_archive(raw: _DirectoryFile, *, on_disk: bool) -> tuple[Any, _Heads]:
    """Read the pickle of a zip archive, and find its storages."""
    file = io.BufferedReader(raw)
    archive = zipfile.ZipFile(file)
    entries = {entry.filename: entry for entry in archive.infolist()}
    (pickle,) = (name for name in entries if name.endswith("/data.pkl"))
    folder = pickle.removesuffix("data.pkl")
    for name in (folder + "byteorder", pickle):
        if name in entries:
            _check_stored(entries[name])
            if entries[name].file_size > _MAX_DIRECTORY:
                raise ValueError(f"{name} is too large for a directory")
            if not entries[name].CRC:  # torch was told not to compute it (set_crc32_options)
                del entries[name].CRC
    order = archive.read(folder + "byteorder") if folder + "byteorder" in entries else b"little"
    if order != b"little":
        raise ValueError(f"numbers in the byte order {order!r}")
    known: dict[str, _Storage] = {}
    state = read_pickle(io.BytesIO(archive.read(pickle)), _noting(known))
    heads = {}
    for key in known:
        entry = entries.get(f"{folder}data/{key}")
        if entry is not None:
            _check_stored(entry)
            heads[key] = _head_on_disk(file, entry) if on_disk else _usual_head(entry)
    return state, heads


def _check_stored(entry: zipfile.ZipInfo) -> None:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"{entry.filename} is compressed")


def _head_on_disk(file: Any, entry: zipfile.ZipInfo) -> StorageHead:
    """Return the local header of an entry, of the length that it gives itself."""
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    lengths = sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    end = entry.header_offset + _LOCAL_HEADER + lengths
    return StorageHead(
        entry.header_offset, end, entry.file_size, lambda raw: raw.startswith(_ZIP_START)
    )


def _usual_head(entry: zipfile.ZipInfo) -> StorageHead:
    """Return the local header of an entry, which torch pads so that the content is aligned.

    How long it is, is in itself alone (APPNOTE.TXT 4.3.7), so this is checked when it was read.
    """
    name = entry.filename.encode()
    start, size = entry.header_offset, entry.file_size
    longer = 4 * (size >= _LONG or start >= _LONG) + 16 * (size >= _LONG) + 8 * (start >= _LONG)
    least = start + _LOCAL_HEADER + len(name) + 4 + longer
    end = math.ceil(least / _ALIGNMENT) * _ALIGNMENT

    def is_right(raw: bytes) -> bool:
        lengths = int.from_bytes(raw[26:28], "little") + int.from_bytes(raw[28:30], "little")
        return (
            raw.startswith(_ZIP_START)
            and _LOCAL_HEADER + lengths == len(raw)
            and raw[_LOCAL_HEADER : _LOCAL_HEADER + len(name)] == name
        )

    return StorageHead(start, end, size, is_right)


def _of_sequence(raw: _DirectoryFile) -> tuple[Any, _Heads]:
    """Read an older file: pickles one after the other, and the storages behind them.

    Each begins with its number of elements.
    """
    file: Any = io.BufferedReader(raw)
    known: dict[str, _Storage] = {}
    storage = _noting(known)
    magic, protocol, system, state, keys = (read_pickle(file, storage) for _ in range(5))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or system.get("little_endian") is False:
        raise ValueError("no file of torch.save of this byte order")
    heads, position = {}, file.tell()
    for key in keys:
        size = known[key].length * BITS[known[key].dtype] // 8
        count = known[key].length.to_bytes(8, "little")
        heads[key] = StorageHead(position, position + 8, size, partial(operator.eq, count))
        position += 8 + size
    return state, heads


def _noting(known: dict[str, _Storage]) -> Callable[[Any], _Storage]:
    """Return what reads the id of a storage, and notes it under its key."""

    def storage(identity: Any) -> _Storage:
        found = _storage(identity)
        if known.setdefault(found.key, found).length != found.length:
            raise ValueError(f"two storages {found.key}")
        return found

    return storage


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", Global(kind), str(key), _, int(length), *view) if 0 <= length < 2**60:
            pass
        case _:
            raise ValueError("an object that is not a storage")
    name = kind.rpartition(" ")[2]
    dtype = _STORAGES.get(name, name)  # a tensor of another is refused by its name
    match view:
        case [(_, int(first), int(_))] if first >= 0:
            return _Storage(key, dtype, length, first)
    return _Storage(key, dtype, length)


@dataclass(frozen=True)
class _View:
    """The numbers of a storage that a tensor is made of; ``strides`` are in elements."""

    storage: _Storage
    dtype: str
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _view(label: str, call: Call) -> _View:
    """Return what a call of torch's would make; ``label`` names the tensor in errors."""
    further: list[Any] = []
    match call:
        # Another call, with attributes of its own.
        case Call("torch._tensor _rebuild_from_type_v2", (Global(function), _, tuple(inner), _)):
            return _view(label, Call(function, inner))
        case Call(
            "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state",
            (Call() as parameter, *_),
        ):
            return _view(label, parameter)
        case Call("torch._utils _rebuild_meta_tensor_no_storage"):
            raise CheckpointError(
                f"{label} holds no data (it is on the meta device); save the model again without "
                "offloading"
            )
        case Call(
            "torch._utils _rebuild_tensor" | "torch._utils _rebuild_tensor_v2",
            (_Storage() as storage, first, tuple(shape), tuple(strides), *rest),
        ):
            dtype, further = storage.dtype, rest[2:]
        case Call(
            "torch._utils _rebuild_tensor_v3",
            (_Storage() as storage, first, tuple(shape), tuple(strides), _, _, Global(kind), *rest),
        ):
            dtype, further = TORCH_DTYPES.get(kind.removeprefix("torch "), kind), rest
        case _:
            what = call.function.rpartition(" ")[2]
            raise CheckpointError(f"{label} is made by {what}, and is not plain numbers")
    if dtype not in BITS or any(further):  # the latter: numbers to be negated or conjugated
        raise CheckpointError(f"{label} is {dtype}, not plain numbers")
    counts = all(type(n) is int and 0 <= n <= MAX_LENGTH for n in (first, *shape, *strides))
    if not len(shape) == len(strides) <= MAX_AXES or not counts:
        raise CheckpointError(f"{label}: its shape, strides or offset are invalid; fetch it again")
    return _View(storage, dtype, storage.first + first, shape, strides)


def _is_in_order(view: _View) -> bool:
    """Whether the elements lie one after the other, the last axis fastest."""
    expected = 1
    for length, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
