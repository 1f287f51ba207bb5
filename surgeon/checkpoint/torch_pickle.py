"""Where each tensor lies in a PyTorch pickle: its directory, read without torch, running nothing.

Both formats keep tensors uncompressed at an offset. Since 1.6, ``torch.save`` writes a zip archive
(``data.pkl`` and an entry per storage); before, pickles in a row and then the storages in a row.
``pickletools`` parses the pickle; what its opcodes build is made here, out of plain values and the
few names that a tensor takes. Every other name or opcode is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from surgeon.checkpoint.dtypes import BITS
from surgeon.checkpoint.safetensors_file import TensorInfo
from surgeon.errors import CheckpointError

_MAX_DIRECTORY = 16 * 2**20  # bytes; a model of a thousand tensors takes some 200 thousand
_MOST_OPCODES = 500_000  # of some 40 thousand; Python takes seconds for them
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_START = b"PK\x03\x04"
_ALIGNMENT = 64  # of an entry's content in torch's archives
_LONG = 0xFFFFFFFF  # sizes and offsets from here on take a longer zip header

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "UntypedStorage": "U8",
}  # fmt: skip
_DTYPES = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}


class DirectoryFile(io.RawIOBase):
    """The parts of a file that its directory takes, fetched in blocks, and no more than a bound."""

    def __init__(
        self, label: str, size: int, block: int, part: Callable[[int, int], bytes]
    ) -> None:
        self._label, self._size, self._block, self._part = label, size, block, part
        self._at = 0
        self._blocks: dict[int, bytes] = {}

    def seekable(self) -> bool:
        """Say that it can be."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return as many bytes as there are, up to ``size``; what is missing is fetched at once."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        first, last = self._at // self._block, max(end - 1, self._at) // self._block
        new = [number for number in range(first, last + 1) if number not in self._blocks]
        if (len(self._blocks) + len(new)) * self._block > _MAX_DIRECTORY + 2 * self._block:
            raise CheckpointError(
                f"{self._label}: its directory has more than {_MAX_DIRECTORY} bytes; no model's has"
            )
        if new and end > self._at:
            start = new[0] * self._block
            raw = self._part(start, min((new[-1] + 1) * self._block, self._size) - start)
            for number in range(new[0], new[-1] + 1):
                at = (number - new[0]) * self._block
                self._blocks[number] = raw[at : at + self._block]
        held = b"".join(self._blocks.get(number, b"") for number in range(first, last + 1))
        found = held[self._at - first * self._block : end - first * self._block]
        self._at += len(found)
        return found


@dataclass(frozen=True)
class StorageHead:
    """The bytes ahead of a storage's content: if they are ``is_right``, that is where it lies."""

    start: int
    end: int
    is_right: Callable[[bytes], bool]


@dataclass(frozen=True)
class PickleDirectory:
    """The tensors of a pickle by name, each with the head of the storage it is in.

    ``scattered`` are those that do not lie in one piece: their offsets mean nothing.
    """

    tensors: Mapping[str, TensorInfo]
    heads: Mapping[str, StorageHead]
    scattered: frozenset[str]


def read_directory(label: str, file: DirectoryFile, size: int) -> PickleDirectory:
    """Read where the tensors of a ``torch.save`` file of ``size`` bytes lie.

    Raises:
        CheckpointError: it is none, is damaged, or holds more than a flat map of plain tensors.
    """
    try:
        zipped = file.read(len(_ZIP_START)) == _ZIP_START
        file.seek(0)
        state, homes = _from_zip(label, file) if zipped else _from_legacy(label, file, size)
    except CheckpointError:
        raise
    except Exception as error:  # bytes that are no pickle may fail in any operation
        raise CheckpointError(
            f"{label}: damaged, or not a pickle of PyTorch ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, _Tensor) for name, value in state.items()
    ):
        raise CheckpointError(
            f"{label}: holds something other than a flat map of tensors; save model.state_dict()"
        )
    tensors = {name: _info(label, name, value, homes, size) for name, value in state.items()}
    heads = {name: homes[value.storage.key] for name, value in state.items()}
    scattered = frozenset(name for name, value in state.items() if not value.in_one_piece)
    return PickleDirectory(tensors, heads, scattered)


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    length: int

    @property
    def bytes(self) -> int:
        return self.length * BITS[self.dtype] // 8


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    @property
    def in_one_piece(self) -> bool:
        steps = zip(self.shape, self.stride, self._row_major(), strict=True)
        return all(stride == wanted for length, stride, wanted in steps if length > 1)

    def _row_major(self) -> Iterable[int]:
        return [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]


def _rebuild(storage: Any, offset: Any, shape: Any, stride: Any, *_further: Any) -> _Tensor:
    return _rebuild_typed(storage, offset, shape, stride, None, None, None)


def _rebuild_typed(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> _Tensor:
    typed = dtype.dtype if isinstance(dtype, _StorageType) else None
    whole = (offset, *shape, *stride)
    if (
        not isinstance(storage, _Storage)
        or not all(type(number) is int and 0 <= number < 2**63 for number in whole)
        or len(shape) != len(stride)
    ):
        raise ValueError("a tensor whose place is no row of counts")
    return _Tensor(storage, offset, tuple(shape), tuple(stride), typed or storage.dtype)


def _parameter(data: Any, *_: Any) -> Any:
    return data


_CALLABLE: Mapping[str, Callable[..., Any]] = {
    "collections OrderedDict": dict,
    "torch._utils _rebuild_tensor_v2": _rebuild,
    "torch._utils _rebuild_tensor_v3": _rebuild_typed,
    "torch._utils _rebuild_parameter": _parameter,
}
_TYPES: Mapping[str, _StorageType] = {
    "torch.storage UntypedStorage": _StorageType("U8"),
    **{f"torch {name}": _StorageType(dtype) for name, dtype in (_STORAGES | _DTYPES).items()},
}


def _load(label: str, file: Any) -> tuple[Any, dict[str, _Storage]]:
    """Return what a pickle describes, and the storages that it refers to; the file is after it."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    storages: dict[str, _Storage] = {}

    def popped(count: int) -> list[Any]:
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    for number, (opcode, value, _) in enumerate(pickletools.genops(file)):
        if number > _MOST_OPCODES:
            raise ValueError(f"a directory of more than {_MOST_OPCODES} opcodes")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "STOP":
                return stack.pop(), storages
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT" | "BINUNICODE"
                | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING" | "NONE"
            ):  # fmt: skip
                stack.append(value)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(popped(len(stack) - marks.pop())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(popped(int(opcode.name[-1]))))
            case "APPEND" | "APPENDS":
                items = popped(1 if opcode.name == "APPEND" else len(stack) - marks.pop())
                list.extend(stack[-1], items)
            case "SETITEM" | "SETITEMS":
                items = popped(2 if opcode.name == "SETITEM" else len(stack) - marks.pop())
                dict.update(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "GLOBAL" | "STACK_GLOBAL":
                stack.append(_named(label, value or " ".join(popped(2))))
            case "REDUCE":
                function, arguments = popped(2)
                if function not in _CALLABLE.values():
                    raise ValueError("a call of what is no function")
                stack.append(function(*arguments))
            case "BINPERSID":
                storage = _storage(*stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise ValueError(f"two storages {storage.key}")
                stack.append(storage)
            case "BUILD":
                stack.pop()  # the _metadata of a state_dict; nothing takes a state here
            case other:
                raise ValueError(f"the opcode {other}, which no plain tensor takes")
    raise ValueError("no end")


def _named(label: str, name: str) -> Any:
    found = _CALLABLE.get(name) or _TYPES.get(name)
    if found is None:
        raise CheckpointError(
            f"{label}: holds {name.replace(' ', '.')}, and not only plain tensors; a pickle can "
            "carry code, so surgeon reads nothing else; save model.state_dict()"
        )
    return found


def _storage(kind: Any, of: Any, key: Any, _place: Any, length: Any, *view: Any) -> _Storage:
    """Return the storage that a tensor refers to."""
    if (
        kind != "storage"
        or not isinstance(of, _StorageType)
        or not isinstance(key, str)
        or type(length) is not int
        or not 0 <= length < 2**60
        or any(part is not None for part in view)
    ):
        raise ValueError("a storage that is described in an unknown way")
    return _Storage(key, of.dtype, length)


_Homes = dict[str, StorageHead]


def _from_zip(label: str, file: DirectoryFile) -> tuple[Any, _Homes]:
    archive = zipfile.ZipFile(file)
    entries = {entry.filename: entry for entry in archive.infolist()}
    top = next(name for name in entries if name.endswith("/data.pkl")).removesuffix("data.pkl")
    order = archive.read(entry) if (entry := _small(entries, f"{top}byteorder")) else b"little"
    if order != b"little":
        raise CheckpointError(f"{label}: its bytes are in the order {order!r}, not little-endian")
    if not (entry := _small(entries, f"{top}data.pkl")):
        raise ValueError("a directory that is packed, or too large")
    state, storages = _load(label, io.BytesIO(archive.read(entry)))
    homes = {}
    for key, storage in storages.items():
        entry = entries[f"{top}data/{key}"]
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != storage.bytes:
            raise ValueError(f"storage {key} has {entry.file_size} bytes, not {storage.bytes}")
        homes[key] = _zip_head(entry)
    return state, homes


def _small(entries: Mapping[str, zipfile.ZipInfo], name: str) -> zipfile.ZipInfo | None:
    """Return an entry that may be read: one that does not unpack to more than it has."""
    entry = entries.get(name)
    if entry is None or entry.compress_type != zipfile.ZIP_STORED:
        return None
    return entry if entry.file_size <= _MAX_DIRECTORY else None


def _zip_head(entry: zipfile.ZipInfo) -> StorageHead:
    """Return the local header of an entry, which torch pads so that the content is aligned.

    How long it is, is in itself alone (APPNOTE.TXT 4.3.7), so this is checked when it was read.
    """
    name = entry.filename.encode()
    start, size = entry.header_offset, entry.file_size
    longer = 4 * (size >= _LONG or start >= _LONG) + 16 * (size >= _LONG) + 8 * (start >= _LONG)
    end = math.ceil((start + 30 + len(name) + 4 + longer) / _ALIGNMENT) * _ALIGNMENT

    def is_right(raw: bytes) -> bool:
        lengths = int.from_bytes(raw[26:28], "little") + int.from_bytes(raw[28:30], "little")
        return (
            raw.startswith(_ZIP_START)
            and 30 + lengths == len(raw)
            and raw[30 : 30 + len(name)] == name
        )

    return StorageHead(start, end, is_right)


def _from_legacy(label: str, file: DirectoryFile, size: int) -> tuple[Any, _Homes]:
    if _load(label, file)[0] != _LEGACY_MAGIC:
        raise ValueError("no magic number")
    _load(label, file)  # the version of the format, which is always 1001
    if not _load(label, file)[0]["little_endian"]:
        raise CheckpointError(f"{label}: its bytes are not in little-endian order")
    state, storages = _load(label, file)
    keys, _ = _load(label, file)
    homes, position = {}, file.tell()
    for key in keys:
        storage = storages[key]
        homes[key] = _legacy_head(position, storage.length)
        position += 8 + storage.bytes
    if position != size:
        raise CheckpointError(
            f"{label}: describes {position} bytes but has {size}; it is truncated or damaged: "
            "fetch it again"
        )
    return state, homes


def _legacy_head(start: int, length: int) -> StorageHead:
    return StorageHead(start, start + 8, lambda raw: raw == length.to_bytes(8, "little"))


def _info(label: str, name: str, tensor: _Tensor, homes: _Homes, size: int) -> TensorInfo:
    storage, shape = tensor.storage, tensor.shape
    width = BITS[tensor.dtype] // 8
    first = tensor.offset * width
    if tensor.in_one_piece:
        end = first + math.prod(shape) * width
    else:
        reach = sum((n - 1) * step for n, step in zip(shape, tensor.stride, strict=True))
        end = first + (reach + 1) * width
    start = homes[storage.key].end
    if end > storage.bytes or start + storage.bytes > size:
        raise CheckpointError(f"{label}: tensor {name} reaches beyond what the file holds")
    if not tensor.in_one_piece:
        return TensorInfo(name, tensor.dtype, shape, start, start)
    return TensorInfo(name, tensor.dtype, shape, start + first, start + end)
