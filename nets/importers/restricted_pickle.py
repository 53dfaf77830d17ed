"""Weights out of files of torch.save that also hold pickled objects of other programs.

Only tensors and plain containers are built. Whatever else a file names is replaced by an `Inert` object:
nothing is imported for it and nothing is called. Both layouts of torch.save are read, the zip archive and
the older stream. How a pickle restricts what it may name: "Restricting Globals" in Python's documentation.
"""

import io
import pickle
import struct
import sys
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import torch
from torch import Tensor

# First number of the older stream, as torch.save writes it.
STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in set(STORAGES.values())}


class Inert:
    """Stands where a file has an object of another class; it takes everything and does nothing."""

    def __new__(cls, *_args, **_named):
        """Return an empty one, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_args, **_named):
        pass

    def __call__(self, *_args, **_named) -> "Inert":
        """Return another one."""
        return Inert()

    def __setstate__(self, state: object) -> None:
        """Forget the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Forget the item."""

    def append(self, item: object) -> None:
        """Forget the item."""

    def extend(self, items: object) -> None:
        """Forget the items."""

    def add(self, item: object) -> None:
        """Forget the item."""


def rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_rest) -> Tensor:
    """Return a view of the numbers (N,) of a storage; torch refuses one that would reach beyond them."""
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def rebuild_typed_tensor(
    storage: Tensor, offset: int, size: tuple, stride: tuple, _gradient: bool, _hooks: object,
    dtype: torch.dtype, *_rest,
) -> Tensor:  # fmt: skip
    """Return a view of the bytes (N,) of a storage as numbers of `dtype`."""
    return rebuild_tensor(storage.view(dtype), offset, size, stride)


def rebuild_parameter(data: Tensor, *_rest) -> Tensor:
    """Return a parameter's values."""
    return data


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): rebuild_typed_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
    **{(module, name): dtype for module in ("torch", "torch.cuda") for name, dtype in STORAGES.items()},
    ("torch.storage", "UntypedStorage"): torch.uint8,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Builds what `ALLOWED` names and puts an `Inert` in place of everything else.

    Args:
        file: the pickle.
        storage: (dtype, key, number of values, view) -> the storage's values (N,).
    """

    def __init__(self, file: io.BufferedIOBase, storage):
        super().__init__(file, encoding="latin1")
        self.storage = storage
        self.replaced: set[str] = set()

    def find_class(self, module: str, name: str) -> object:
        """Return what a name of the file stands for."""
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        self.replaced.add(f"{module}.{name}")
        return Inert

    def persistent_load(self, pid: object) -> Tensor:
        """Return the values of a storage."""
        kind, dtype, key, _place, count, *view = pid
        if _text(kind) != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown kind of storage {kind!r}")
        return self.storage(dtype, _text(key), int(count), view[0] if view else None)


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def read_restricted(path: Path) -> tuple[object, list[str]]:
    """Return the content of a file of torch.save, and the names of what was replaced.

    Raises:
        pickle.UnpicklingError: it is no such file, or damaged.
    """
    try:
        read = _read_archive if zipfile.is_zipfile(path) else _read_stream
        return read(path)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


def _read_archive(path: Path) -> tuple[object, list[str]]:
    with zipfile.ZipFile(path) as archive:
        main = next(name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl")
        folder = main.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        swapped = order in archive.namelist() and archive.read(order).decode() != sys.byteorder
        storages: dict[str, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, count: int, _view: object) -> Tensor:
            if key not in storages:
                storages[key] = _numbers(archive.read(f"{folder}data/{key}"), dtype, count, swapped=swapped)
            return storages[key]

        unpickler = RestrictedUnpickler(io.BytesIO(archive.read(main)), storage)
        return unpickler.load(), sorted(unpickler.replaced)


def _read_stream(path: Path) -> tuple[object, list[str]]:
    """Read the layout of torch.save before 1.6: pickles, then the values of each storage."""
    storages: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, count: int, view: object) -> Tensor:
        if key not in storages:
            storages[key] = torch.empty(count, dtype=dtype)
        if view is None:
            return storages[key]
        _, offset, size = view
        return storages[key][offset : offset + size]

    with path.open("rb") as file:

        def load() -> tuple[object, list[str]]:
            unpickler = RestrictedUnpickler(file, storage)
            return unpickler.load(), sorted(unpickler.replaced)

        if load()[0] != STREAM_MAGIC:
            raise pickle.UnpicklingError("not a file of torch.save")
        load()  # version of the protocol
        system = load()[0]
        swapped = system.get("little_endian", True) != (sys.byteorder == "little")
        content, replaced = load()
        written = [_text(key) for key in load()[0]]
        if set(storages) - set(written):
            raise pickle.UnpicklingError("tensors are named whose values are not in the file")
        for key in written:
            values = storages[key]
            (count,) = struct.unpack(">q" if swapped != (sys.byteorder == "big") else "<q", _take(file, 8))
            if count > values.numel():
                raise pickle.UnpicklingError(f"a storage of {count} values where {values.numel()} are named")
            data = _take(file, count * values.element_size())
            values[:count] = _numbers(data, values.dtype, count, swapped=swapped)
        return content, replaced


def _take(file: io.BufferedIOBase, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise pickle.UnpicklingError("the file ends in the middle of a tensor")
    return data


def _numbers(data: bytes, dtype: torch.dtype, count: int, *, swapped: bool) -> Tensor:
    """Return the values (N,) in a storage's bytes."""
    if not data:
        return torch.empty(0, dtype=dtype)
    values = bytearray(data)
    if swapped:
        each = dtype.itemsize
        values = bytearray(b"".join(data[i : i + each][::-1] for i in range(0, len(data), each)))
    return torch.frombuffer(values, dtype=dtype)[:count]
