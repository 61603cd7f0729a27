"""Torch checkpoints read without torch, and without running anything that stands in them.

A file written by ``torch.save`` is a zip with a pickle (``data.pkl``), which names objects, and the raw bytes of every tensor
(``data/KEY``). A pickle is a program: it may call whatever it can name. Here it can name only the builders of plain data in
``BUILDERS`` and, as inert ``Record``, the classes of the packages that the caller lists; any other name ends the reading.
"""

from __future__ import annotations

import collections
import contextlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Torch's storages and the NumPy name of their elements."""

DAMAGE = (
    EOFError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, MemoryError, OSError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What unpickling and unpacking raise where bytes are not what they should be."""


class Record:
    """Stands for an instance of a foreign class: its name and what was stored with it. Nothing of it runs."""

    source: str = ""
    """``package.module.Class``."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Record:
        self = super().__new__(cls)
        self.args, self.state = args, {}
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Storage(NamedTuple):
    """One file of raw numbers, shared by one or several tensors."""

    data: np.ndarray


class StorageType(NamedTuple):
    dtype: str


class PlainDtype:
    """``numpy.dtype`` in a pickle."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype:
        if not isinstance(self.name, str) or self.name[:1] not in "fiub" or self.order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"an array of {self.name!r}")
        return np.dtype(self.name).newbyteorder(self.order)


class PlainArray:
    """``numpy.ndarray`` in a pickle."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def value(self) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C").copy()


def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """A window of a storage as an array of its own; ``strides`` count elements."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor that is not described as torch does")
    data = storage.data
    if 0 in shape:
        return np.zeros(shape, data.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if last >= data.size:
        raise pickle.UnpicklingError(f"a tensor that reaches element {last} of {data.size}")
    return np.lib.stride_tricks.as_strided(data[offset:], shape, [step * data.itemsize for step in strides]).copy()


def scalar(dtype: Any, data: Any) -> Any:
    """``numpy.float64(1.0)`` and the like."""
    return np.frombuffer(data, dtype.dtype, count=1)[0]


def latin1(text: Any, *_: Any) -> bytes:
    """How old pickle protocols write bytes."""
    return text.encode("latin1")


first: Callable[..., Any] = lambda value, *_: value

BUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("builtins", "slice"): slice,
    ("_codecs", "encode"): latin1,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): first,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *args: str(args[0]),
    **{("torch", name): StorageType(dtype) for name, dtype in STORAGES.items()},
    **{("torch", f"float{n}"): f"float{n}" for n in (16, 32, 64)},
    **{("torch", f"int{n}"): f"int{n}" for n in (8, 16, 32, 64)},
    ("numpy", "dtype"): PlainDtype,
    ("numpy", "ndarray"): PlainArray,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): PlainArray for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): scalar for core in ("core", "_core")},
}
"""What a pickle may name, and what it gets."""


class Unpickler(pickle.Unpickler):
    """Builds plain data only."""

    def __init__(self, file: io.BytesIO, storage: Callable[[str, str], np.ndarray], packages: Sequence[str]) -> None:
        super().__init__(file)
        self.storage = storage
        self.packages = packages
        self.classes: dict[str, type[Record]] = {}
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in BUILDERS:
            return BUILDERS[module, name]
        source = f"{module}.{name}"
        if module.split(".")[0] in self.packages:
            if source not in self.classes:
                self.classes[source] = type(name, (Record,), {"source": source})
            return self.classes[source]
        raise pickle.UnpicklingError(f"{source}, which is neither a number, a tensor nor a plain container")

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key, *_ = pid
        if kind != "storage" or not isinstance(storage_type, StorageType):
            raise pickle.UnpicklingError(f"an object kept elsewhere of kind {kind!r}")
        if key not in self.storages:
            self.storages[key] = Storage(self.storage(str(key), storage_type.dtype))
        return self.storages[key]


def load(path: str | Path, packages: Sequence[str] = ()) -> Any:
    """What ``torch.save`` wrote: tensors as NumPy arrays, containers as they are, classes of ``packages`` as ``Record``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of torch, cut short or damaged, or it names something that is not plain data; nothing of
            it has run then.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a checkpoint of torch 1.6 or newer (a zip file), or cut short; copy it or save it again")
    with _refusals(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if any(name.endswith("/archive_format") for name in names):
            raise pickle.UnpicklingError("a compiled program (.pt2); give the checkpoint that it was made from")
        if len(pickles) != 1:
            raise ValueError("no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{folder}code/") for name in names):
            raise pickle.UnpicklingError("a TorchScript program; give the checkpoint that it was made from")
        return _unpickle(archive, pickles[0], folder, "data/{}", packages)


def load_packaged(path: str | Path, resource: str, packages: Sequence[str] = ()) -> Any:
    """A pickle in what ``torch.package`` wrote, such as ``model/model.pkl``, as ``load`` gives it. The code is left alone.

    Raises:
        ValueError: as ``load``, or there is no such pickle.
    """
    with _refusals(Path(path)), zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.partition("/")[2] == resource]
        if len(found) != 1:
            raise ValueError(f"no {resource}")
        return _unpickle(archive, found[0], found[0].removesuffix(resource), ".data/{}.storage", packages)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Says of what goes wrong in a file that it is the file."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: refused, and nothing of it was run: it holds {error}") from None
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged, or not what torch writes ({type(error).__name__}: {error})") from None


def _unpickle(archive: zipfile.ZipFile, name: str, folder: str, storages: str, packages: Sequence[str]) -> Any:
    """The content of the pickle ``name``; ``storages`` is how files of raw numbers are called in the ``folder``."""
    entries = {entry.filename: entry for entry in archive.infolist()}

    def content(name: str) -> bytes:
        # torch does not compress: what is compressed may unfold to any size.
        if entries[name].compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError(f"a compressed part ({name})")
        return archive.read(name)

    order = ">" if f"{folder}byteorder" in entries and content(f"{folder}byteorder") == b"big" else "<"
    storage = lambda key, dtype: np.frombuffer(content(folder + storages.format(key)), np.dtype(dtype).newbyteorder(order))
    return plain(Unpickler(io.BytesIO(content(name)), storage, packages).load())


def plain(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """The same with NumPy arrays in place of their makings, in containers at any depth."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, PlainArray):
        return value.value
    if isinstance(value, tuple) and not isinstance(value, (Storage, StorageType)):
        return tuple(plain(item, seen) for item in value)
    seen[id(value)] = value
    if isinstance(value, dict):
        for key in value:
            value[key] = plain(value[key], seen)
    elif isinstance(value, list):
        value[:] = [plain(item, seen) for item in value]
    elif isinstance(value, Record):
        value.args, value.state = plain(value.args, seen), plain(value.state, seen)
    return value
