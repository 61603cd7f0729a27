"""Checkpoints as torch writes them, made here byte by byte: torch is not needed, and what is refused must not have run."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from equipot.convert import torch_file


class Global:
    """A name in a pickle, of something that need not exist here."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("only written")


class Called:
    """``function(*args)``, and then what ``__setstate__`` would get."""

    def __init__(self, module, name, *args, state=None):
        self.parts = (Global(module, name), args) if state is None else (Global(module, name), args, state)

    def __reduce__(self):
        return self.parts


class Numbers:
    """A storage."""

    def __init__(self, values, kind="FloatStorage"):
        self.values, self.kind = np.asarray(values, torch_file.STORAGES[kind]), kind


def tensor(values, kind="FloatStorage", offset=0, shape=None, strides=None):
    values = np.asarray(values, torch_file.STORAGES[kind])
    shape = values.shape if shape is None else shape
    strides = tuple(s // values.itemsize for s in values.strides) if strides is None else strides
    args = (Numbers(values.ravel(), kind), offset, shape, strides, False, Called("collections", "OrderedDict"))
    return Called("torch._utils", "_rebuild_tensor_v2", *args)


class Pickler(pickle._Pickler):
    def __init__(self, file):
        super().__init__(file, 2)
        self.storages = []

    def persistent_id(self, value):
        if not isinstance(value, Numbers):
            return None
        if value not in self.storages:
            self.storages.append(value)
        return ("storage", Global("torch", value.kind), str(self.storages.index(value)), "cpu", value.values.size)

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        else:
            super().save(value, save_persistent_id)


def write(path, value, compression=zipfile.ZIP_STORED, order=None, more=()):
    text = io.BytesIO()
    pickler = Pickler(text)
    pickler.dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", text.getvalue())
        for name in more:
            archive.writestr(name, b"x")
        if order:
            archive.writestr("model/byteorder", order)
        for key, storage in enumerate(pickler.storages):
            data = storage.values.astype(storage.values.dtype.newbyteorder(">")) if order == b"big" else storage.values
            archive.writestr(f"model/data/{key}", data.tobytes(), compression)
    return path


def array(values):
    values = np.asarray(values)
    order, name = values.dtype.str[0], values.dtype.str[1:]
    dtype = Called("numpy", "dtype", name, False, True, state=(3, order, None, None, None, -1, -1, 0))
    empty = (Global("numpy", "ndarray"), (0,), b"b")
    return Called("numpy.core.multiarray", "_reconstruct", *empty, state=(1, values.shape, dtype, False, values.tobytes()))


@pytest.mark.parametrize("order", [None, b"little", b"big"])
def test_plain_data_come_back(tmp_path, order):
    x = np.arange(12.0).reshape(3, 4)
    config = {"cutoff": 5.0, "species": ["H", "O"], "flag": True, "none": None}
    value = {
        "config": {**config, "device": Called("torch", "device", "cuda")},
        "state": {"a": tensor(x), "b": tensor(np.arange(5), "LongStorage"), "c": tensor([True, False], "BoolStorage")},
        "half": tensor([0.5, 1.5], "HalfStorage"),
        "shift": [array([1.5, -2.5]), array(np.arange(6).reshape(2, 3))],
    }
    got = torch_file.load(write(tmp_path / "a.pth", value, order=order))
    assert got["config"] == {**config, "device": "cuda"}
    np.testing.assert_array_equal(got["state"]["a"], x)
    np.testing.assert_array_equal(got["state"]["b"], np.arange(5))
    assert got["state"]["c"].tolist() == [True, False] and got["half"].tolist() == [0.5, 1.5]
    assert got["shift"][0].tolist() == [1.5, -2.5] and got["shift"][1].shape == (2, 3)


def test_tensors_are_windows_of_their_storage(tmp_path):
    base = np.arange(12.0)
    value = {"transposed": tensor(base, shape=(3, 4), strides=(1, 3)), "part": tensor(base, offset=4, shape=(2,), strides=(3,))}
    got = torch_file.load(write(tmp_path / "a.pth", value))
    np.testing.assert_array_equal(got["transposed"], base.reshape(4, 3).T)
    assert got["part"].tolist() == [4.0, 7.0]
    assert torch_file.load(write(tmp_path / "b.pth", tensor(np.zeros((0, 3))))).shape == (0, 3)


BOMBS = {
    "os.system": lambda trap: Called("os", "system", f"touch {trap}"),
    "posix.system": lambda trap: Called("posix", "system", f"touch {trap}"),
    "builtins.eval": lambda trap: Called("builtins", "eval", f"open({trap!r}, 'w')"),
    "builtins.getattr": lambda trap: Called("builtins", "getattr", {}, "keys"),
    "torch.load": lambda trap: Called("torch", "load", trap),
    "subprocess.Popen": lambda trap: {"deep": [{"deeper": Called("subprocess", "Popen", ["touch", trap])}]},
}
"""Pickles that would run something, by what they would run."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path, name):
    trap = tmp_path / "trap"
    path = write(tmp_path / "bad.pth", BOMBS[name](str(trap)))
    with zipfile.ZipFile(path) as archive:
        text = archive.read("model/data.pkl")
    if name in ("os.system", "builtins.eval"):
        pickle.loads(text)  # The trap works where nobody looks.
        assert trap.exists()
        trap.unlink()
    with pytest.raises(ValueError, match=f"bad.pth: refused, and nothing of it was run: it holds {name}"):
        torch_file.load(path)
    assert not trap.exists()


def test_classes_of_listed_packages_are_inert(tmp_path):
    value = Called("mace.modules.models", "MACE", state={"r_max": tensor(5.0), "act": Global("torch.nn.functional", "silu")})
    path = write(tmp_path / "m.model", value)
    with pytest.raises(ValueError, match=r"mace\.modules\.models\.MACE"):
        torch_file.load(path)
    got = torch_file.load(path, ("mace", "torch"))
    assert got.source == "mace.modules.models.MACE" and float(got.state["r_max"]) == 5.0
    assert got.state["act"].source == "torch.nn.functional.silu"


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"shape": (100,), "strides": (1,)}, "reaches element 99 of 12"),
        ({"shape": (2,), "strides": (-1,)}, "not described as torch does"),
        ({"shape": (2, 2), "strides": (1,)}, "not described as torch does"),
        ({"offset": 1 << 60}, "reaches element"),
        ({"offset": "x"}, "not described as torch does"),
    ],
)
def test_windows_outside_their_storage_are_refused(tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        torch_file.load(write(tmp_path / "a.pth", tensor(np.arange(12.0), **changes)))


def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(FileNotFoundError, match="no such file"):
        torch_file.load(path)
    path.write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match="a zip file"):
        torch_file.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/y", b"z")
    with pytest.raises(ValueError, match="no data.pkl"):
        torch_file.load(path)
    with pytest.raises(ValueError, match="TorchScript"):
        torch_file.load(write(path, {}, more=("model/code/a.py",)))
    with pytest.raises(ValueError, match="compressed"):
        torch_file.load(write(path, tensor(np.zeros(1000)), zipfile.ZIP_DEFLATED))


def test_every_cut_and_every_flipped_byte_ends_in_one_line(tmp_path):
    path = write(tmp_path / "a.pth", {"a": tensor(np.arange(3.0)), "b": array([1.0])})
    data = path.read_bytes()
    for at in range(len(data)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]):
            path.write_bytes(damaged)
            try:
                torch_file.load(path)
            except ValueError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_an_instance_made_without_its_constructor_keeps_what_it_was_given(tmp_path):
    text = b"\x80\x02" + pickle.GLOBAL + b"e3nn.o3._irreps\nIrrep\n" + b"K\x01K\x02\x86" + pickle.NEWOBJ + b"."
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", text)
    got = torch_file.load(path, ("e3nn",))
    assert got.source == "e3nn.o3._irreps.Irrep" and got.args == (1, 2)


def raw(path, *pickles):
    """A file of pickles that are given byte by byte."""
    with zipfile.ZipFile(path, "w") as archive:
        for folder, text in zip("abc", pickles, strict=False):
            archive.writestr(f"{folder}/data.pkl", b"\x80\x04" + text + b".")
    return path


def shared(kind, times=60):
    """Nested containers, each of which holds the one before twice: 2^60 parts in a few hundred bytes."""
    again = {"tuple": b"0h\x00h\x00\x86q\x00", "list": b"0](h\x00h\x00eq\x00"}[kind]
    return {"tuple": b")q\x00", "list": b"]q\x00"}[kind] + again * times


def windows(count):
    """Tensors with one storage."""
    storage = Numbers(np.zeros(9999))
    return [Called("torch._utils", "_rebuild_tensor_v2", storage, 0, (9999,), (1,)) for _ in range(count)]


def copies(count):
    """A list made into a tuple again and again."""
    return b"](" + b"N" * 999 + b"eq\x00" + b"0ctorch\nSize\nh\x00\x85R" * count


BURDENS = {
    "stride 0": (lambda path: write(path, tensor([1.0], shape=(2 * 10**9,), strides=(0,))), "tensors of 8000000000 bytes"),
    "overlapping": (lambda path: write(path, tensor(np.zeros(999), shape=(500, 500), strides=(1, 1))), "tensors of 1000000 b"),
    "one storage": (lambda path: write(path, windows(9)), "over 8 times the size"),
    "tuples": (lambda path: raw(path, shared("tuple")), "a value of more than 10000 parts"),
    "tuples as keys": (lambda path: raw(path, shared("tuple") + b"0}h\x00Ns"), "a value of more than 10000 parts"),
    "lists": (lambda path: raw(path, shared("list")), "containers of more than .* parts"),
    "copies": (lambda path: raw(path, copies(999)), "over 8 times the size"),
    "device": (lambda path: raw(path, shared("list") + b"0ctorch\ndevice\nh\x00\x85R"), "a device without a name"),
    "kind": (lambda path: raw(path, shared("list") + b"0h\x00NN\x87Q"), "an object kept elsewhere"),
    "key": (
        lambda path: raw(path, shared("list") + b"0\x8c\x07storagectorch\nFloatStorage\nh\x00\x87Q"),
        "an object kept elsewhere",
    ),
    "dtype": (
        lambda path: raw(path, shared("list") + b"0cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nh\x00\x85RC\x01x\x86R"),
        "an array of what is no number",
    ),
    "place of the memo": (lambda path: raw(path, b"Nr" + struct.pack("<I", 2**29)), "place 536870912 of a memo"),
    "place in text": (lambda path: raw(path, b"Np536870912\n"), "place 536870912 of a memo"),
    "bytearray": (lambda path: raw(path, b"\x96" + struct.pack("<Q", 2**33)), "expected 8589934592 bytes"),
}
"""Small files that would take gigabytes, or a time without end."""


@pytest.mark.parametrize("name", BURDENS)
def test_a_small_file_takes_little(tmp_path, name):
    make, complaint = BURDENS[name]
    path = make(tmp_path / "a.pth")
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=complaint):
        torch_file.load(path)


def test_what_is_shared_stays_shared(tmp_path):
    pair = (array([1.0, 2.0]), "x")
    got = torch_file.load(write(tmp_path / "a.pth", [pair, pair, {"again": pair}]))
    assert got[0] is got[1] is got[2]["again"] and got[0][0].tolist() == [1.0, 2.0]


def test_no_file_changes_how_the_next_is_read(tmp_path):
    for function in ("_codecs\nencode", "torch\ndevice", "torch._utils\n_rebuild_tensor_v2", "builtins\nset", "numpy\ndtype"):
        for state in (b"}\x8c\x0c__defaults__N\x85s", b"}\x8c\x08functionNs", b"N}\x8c\x08functionNs\x86"):
            with pytest.raises(ValueError, match="state for a function"):
                torch_file.load(raw(tmp_path / "bad.pth", b"c" + function.encode() + b"\n" + state + b"b"))
    value = Called("_codecs", "encode", "\xe9", "latin1")
    assert torch_file.load(write(tmp_path / "good.pth", value)) == b"\xe9"


def test_names_in_a_file_do_not_steer_the_terminal(tmp_path):
    name = "os\n\x1b[31mred\rover"
    path = raw(tmp_path / "a.pth", pickle.dumps(name, 4)[2:-1] + b"\x8c\x01x\x93")
    with pytest.raises(ValueError) as caught:
        torch_file.load(path)
    assert str(caught.value).isprintable() and r"os\n\x1b[31mred\rover.x" in str(caught.value)


def test_two_checkpoints_in_one_file_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"2 times data.pkl, of which there should be one: a/data.pkl, b/data.pkl"):
        torch_file.load(raw(tmp_path / "a.pth", b"N", b"N"))
