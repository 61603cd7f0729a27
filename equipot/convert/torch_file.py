"""Reader of torch checkpoints, without torch and without running code from a file.

A file written by ``torch.save`` is a zip with a pickle (``data.pkl``), which names objects, and the raw bytes of every tensor
(``data/KEY``). A pickle is a program that may call any function it can name. This reader lets a pickle name only the builders
of plain data in ``BUILDERS`` and, as inert ``Record``, the classes of the packages that the caller lists; any other name
raises. The use of memory and time is bounded by the size of the file.
"""

from __future__ import annotations

import collections
import contextlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from equipot.convert import opcodes

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
"""Torch's classes of storages, and the NumPy type of their elements."""

LARGEST_GROWTH = 8
"""Largest size of the built objects, relative to the size of the file. Known checkpoints build less than their size; the factor
allows for tensors that share numbers, such as tied weights."""

DAMAGE = (
    EOFError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, MemoryError, OSError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Exceptions that unpickling and unpacking raise for damaged files."""


class Record:
    """Inert substitute for an instance of a foreign class, whose code does not run."""

    source: str = ""
    """Name of the class, ``package.module.Class``."""

    args: tuple[Any, ...]
    """Arguments of the constructor."""
    state: Any
    """State of the instance, usually a dict of attributes."""

    def __new__(cls, *args: Any) -> Record:
        self = super().__new__(cls)
        self.args, self.state = args, {}
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Storage(NamedTuple):
    """Numbers of one file in the zip, used by one or several tensors."""

    data: np.ndarray


class StorageType(NamedTuple):
    """Substitute for a class of storages."""

    dtype: str
    """NumPy type of the elements."""


class PlainDtype:
    """Substitute for ``numpy.dtype`` in a pickle."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name
        self.order: Any = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype:
        """The NumPy type; raises UnpicklingError if the type is not a number."""
        if not isinstance(self.name, str) or self.name[:1] not in "fiub" or self.order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"an array of {self.name if isinstance(self.name, str) else 'what is no number'}")
        return np.dtype(self.name).newbyteorder(self.order)


class PlainArray:
    """Substitute for ``numpy.ndarray`` in a pickle."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def value(self) -> np.ndarray:
        """The array."""
        _, shape, dtype, fortran, data = self.state
        return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """Return a view of a storage as a tensor; offset and strides count elements.

    Raises:
        UnpicklingError: the arguments are not those of a tensor, or reach beyond the storage.
    """
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor that is not described as torch does")
    data = storage.data
    if 0 in shape:
        return np.zeros(shape, data.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if last >= data.size:
        raise pickle.UnpicklingError(f"a tensor that reaches element {last} of {data.size}")
    return np.lib.stride_tricks.as_strided(data[offset:], shape, [step * data.itemsize for step in strides])


def scalar(dtype: Any, data: Any) -> Any:
    """Build a NumPy scalar, such as ``numpy.float64(1.0)``."""
    return np.frombuffer(data, dtype.dtype, count=1)[0]


def latin1(text: Any, *_: Any) -> bytes:
    """Build bytes, which old pickle protocols write as text."""
    return text.encode("latin1")


def device(name: Any, *_: Any) -> str:
    """Build the name of a ``torch.device``."""
    if not isinstance(name, str):
        raise pickle.UnpicklingError("a device without a name")
    return name


first_argument: Callable[..., Any] = lambda value, *_: value

BUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("builtins", "slice"): slice,
    ("_codecs", "encode"): latin1,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): first_argument,
    ("torch", "Size"): tuple,
    ("torch", "device"): device,
    **{("torch", name): StorageType(dtype) for name, dtype in STORAGES.items()},
    **{("torch", f"float{n}"): f"float{n}" for n in (16, 32, 64)},
    **{("torch", f"int{n}"): f"int{n}" for n in (8, 16, 32, 64)},
    ("numpy", "dtype"): PlainDtype,
    ("numpy", "ndarray"): PlainArray,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): PlainArray for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): scalar for core in ("core", "_core")},
}
"""Objects that a pickle may name, as (module, name), and their substitutes."""


class Builder:
    """Wrapper of a function that a pickle may call; ``pay`` is charged with the size of each result.

    A wrapper refuses state, which a pickle may set on any object, and which would otherwise stay for the next file.
    """

    __slots__ = ("function", "pay")

    def __init__(self, function: Callable[..., Any], pay: Callable[[int], None]) -> None:
        self.function, self.pay = function, pay

    def __call__(self, *args: Any) -> Any:
        made = self.function(*args)
        # An argument that is returned was charged when it was made.
        if not any(made is arg for arg in args):
            self.pay(made.nbytes if isinstance(made, np.ndarray) else len(made) if isinstance(made, Sized) else 0)
        return made

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a function")


class Unpickler(pickle.Unpickler):
    """Unpickler of plain data; its functions make at most ``allowance`` bytes of tensors and entries of containers.

    Args:
        file: Pickle.
        storage: Function that reads the numbers of a storage by key and NumPy type.
        packages: Packages whose classes are read as ``Record``.
        allowance: Largest size of the built objects.
    """

    def __init__(
        self, file: io.BytesIO, storage: Callable[[str, str], np.ndarray], packages: Sequence[str], allowance: int
    ) -> None:
        super().__init__(file)
        self.storage = storage
        self.left = self.allowance = allowance
        self.packages = packages
        self.classes: dict[str, type[Record]] = {}
        self.storages: dict[str, Storage] = {}

    def pay(self, size: int) -> None:
        """Subtract ``size`` from the allowance.

        Raises:
            UnpicklingError: the allowance is used up.
        """
        self.left -= size
        if self.left < 0:
            raise pickle.UnpicklingError(
                f"tensors of {self.allowance - self.left} bytes and more, over {LARGEST_GROWTH} times the size of the file"
            )

    def find_class(self, module: str, name: str) -> Any:
        """Return the substitute for an object that the pickle names.

        Raises:
            UnpicklingError: the object is neither in ``BUILDERS`` nor a class of ``packages``.
        """
        if (module, name) in BUILDERS:
            known = BUILDERS[module, name]
            return Builder(known, self.pay) if callable(known) else known
        source = f"{module}.{name}"
        if module.split(".")[0] in self.packages:
            if source not in self.classes:
                self.classes[source] = type(name, (Record,), {"source": source})
            return self.classes[source]
        raise pickle.UnpicklingError(f"{source}, which is neither a number, a tensor nor a plain container")

    def persistent_load(self, pid: Any) -> Storage:
        """Read the storage that the pickle refers to, once for each key.

        Raises:
            UnpicklingError: the reference is not to a storage of torch.
        """
        kind, storage_type, key, *_ = pid
        if kind != "storage" or not isinstance(storage_type, StorageType) or not isinstance(key, str | int):
            raise pickle.UnpicklingError(f"an object kept elsewhere{f' of kind {kind}' if isinstance(kind, str) else ''}")
        name = str(key)
        if name not in self.storages:
            self.storages[name] = Storage(self.storage(name, storage_type.dtype))
        return self.storages[name]


def load(path: str | Path, packages: Sequence[str] = ()) -> Any:
    """Read a file of ``torch.save``: tensors become NumPy arrays, instances of classes of ``packages`` become ``Record``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a checkpoint of torch, is damaged, or names objects that are not plain data. No code of the
            file has run.
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
            raise ValueError(_count(pickles, "data.pkl"))
        folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{folder}code/") for name in names):
            raise pickle.UnpicklingError("a TorchScript program; give the checkpoint that it was made from")
        return _unpickle(archive, pickles[0], folder, "data/{}", packages)


def load_packaged(path: str | Path, resource: str, packages: Sequence[str] = ()) -> Any:
    """Read a pickle, such as ``model/model.pkl``, from a file of ``torch.package`` as ``load`` does; code is not read.

    Raises:
        ValueError: as ``load``, or the file has no such pickle.
    """
    with _refusals(Path(path)), zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.partition("/")[2] == resource]
        if len(found) != 1:
            raise ValueError(_count(found, resource))
        return _unpickle(archive, found[0], found[0].removesuffix(resource), ".data/{}.storage", packages)


def _count(found: list[str], wanted: str) -> str:
    """Return the error message for a file in which ``wanted`` is not found exactly once."""
    return f"{len(found)} times {wanted}, of which there should be one: {', '.join(found)}" if found else f"no {wanted}"


def printable(message: str) -> str:
    """Replace control characters by escapes, since a name from a file must not control a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn exceptions in the reading of a file into a ValueError that names the file."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: refused, and nothing of it was run: it holds {printable(str(error))}") from None
    except DAMAGE as error:
        said = printable(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path}: damaged, or not what torch writes ({said})") from None


def _unpickle(archive: zipfile.ZipFile, name: str, folder: str, storages: str, packages: Sequence[str]) -> Any:
    """Read a pickle of an archive.

    Args:
        archive: Open zip file.
        name: Path of the pickle in the archive.
        folder: Path prefix of the files with raw numbers.
        storages: Format of the names of these files, with {} for the key.
        packages: As in ``load``.
    """
    entries = {entry.filename: entry for entry in archive.infolist()}

    def content(name: str) -> bytes:
        # torch does not compress, and a compressed file may decompress to any size.
        if entries[name].compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError(f"a compressed part ({name})")
        return archive.read(name)

    order: Literal["<", ">"] = ">" if f"{folder}byteorder" in entries and content(f"{folder}byteorder") == b"big" else "<"
    storage = lambda key, dtype: np.frombuffer(content(folder + storages.format(key)), np.dtype(dtype).newbyteorder(order))
    text = content(name)
    opcodes.check(text)
    allowance = LARGEST_GROWTH * Path(str(archive.filename)).stat().st_size
    value = plain(Unpickler(io.BytesIO(text), storage, packages, allowance).load())
    check_text(value, LARGEST_GROWTH * len(text))
    return value


def plain(value: Any, done: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Replace every ``PlainArray`` by a NumPy array, in containers at any depth.

    ``done`` maps the id of each object that was seen to the object, which is kept alive so that its id stays unique, and to its
    replacement.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, PlainArray):
        made: Any = value.value
    elif isinstance(value, tuple) and not isinstance(value, (Storage, StorageType)):
        made = tuple(plain(item, done) for item in value)
    elif isinstance(value, (dict, list, Record)):
        made = value
    else:
        return value
    done[id(value)] = value, made
    if isinstance(value, dict):
        for key in value:
            value[key] = plain(value[key], done)
    elif isinstance(value, list):
        value[:] = [plain(item, done) for item in value]
    elif isinstance(value, Record):
        value.args, value.state = plain(value.args, done), plain(value.state, done)
    return made


def check_text(value: Any, limit: int, sizes: dict[int, int] | None = None) -> int:
    """Count the parts of a value as an error message would print them: shared parts count each time, a record counts once.

    Raises:
        UnpicklingError: the value, or the content of a record in the value, has more than ``limit`` parts.
    """
    sizes = {} if sizes is None else sizes
    if id(value) in sizes or not isinstance(value, (dict, list, tuple, set, Record)):
        return sizes.get(id(value), 1)
    sizes[id(value)] = 1
    if isinstance(value, Record):
        check_text(value.args, limit, sizes)
        check_text(value.state, limit, sizes)
        return 1
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    size = sizes[id(value)] = 1 + sum(check_text(part, limit, sizes) for part in parts)
    if size > limit:
        raise pickle.UnpicklingError(f"containers of more than {limit} parts, because they share them")
    return size
