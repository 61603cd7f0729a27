"""The file of a potential: what is written is read back exactly, and nothing damaged is ever read."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import safetensors
from ase.build import molecule

import equipot
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Agnesi, Gaussian, Radial
from equipot.structure import Structure


@pytest.fixture(scope="module")
def potential():
    term = MACE(
        cutoff=3.0, elements=(1, 6, 8), channels=2, l_max=1, correlation=1, layers=1,
        radial=Radial(Gaussian(4), transform=Agnesi(), mlp=(3,)),
    )  # fmt: skip
    metadata = Metadata(((1, -13.6), (6, -1026.8539), (8, -2037.796869)), "PBE", "us, 2026", extra=(("note", "åäö"),))
    graph = pad([Structure.from_ase(molecule("CH3CH2OH"))], 3.0)
    return fresh(term, graph, jax.random.key(0), metadata, scale=0.5, avg_num_neighbors=7.5)


@pytest.fixture
def file(potential, tmp_path):
    equipot.save(potential, tmp_path / "a.eqp")
    return tmp_path / "a.eqp"


def test_round_trip_is_exact(potential, file):
    read = equipot.load(file)
    assert read.term == potential.term and read.metadata == potential.metadata
    assert jax.tree.structure(read) == jax.tree.structure(potential)
    for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(potential), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def test_double_precision_survives_in_a_process_of_single_precision(potential, tmp_path, double_precision):
    exact = potential.astype("float64")
    exact = exact.replace(variables=jax.tree.map(lambda x: x * np.pi, exact.variables))
    equipot.save(exact, tmp_path / "a.eqp")
    jax.config.update("jax_enable_x64", False)
    read = equipot.load(tmp_path / "a.eqp")
    assert all(map(np.array_equal, jax.tree.leaves(read.variables), jax.tree.leaves(exact.variables)))


def test_precision_is_chosen_when_loaded(file, double_precision):
    assert equipot.load(file).dtype == np.float32
    assert equipot.load(file, dtype="float64").dtype == np.float64
    with pytest.raises(ValueError, match="float16 is not supported; use float32 or float64"):
        equipot.load(file, dtype="float16")


def test_any_changed_byte_is_noticed(file):
    content = file.read_bytes()
    random = np.random.default_rng(0)
    for place in [*range(0, len(content), 5), len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"a\.eqp: "):
            equipot.load(file)


def test_a_file_cut_anywhere_is_refused(file):
    content = file.read_bytes()
    for length in [0, 5, 8, *range(9, len(content), 101), len(content) - 1]:
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.eqp: .*cut short"):
            equipot.load(file)


def test_foreign_newer_and_missing_files(file, tmp_path):
    from safetensors.numpy import save_file

    from equipot.artifact import digest
    from equipot.eqp import POTENTIAL

    save_file({"w": np.zeros(2)}, tmp_path / "foreign.eqp")
    with pytest.raises(ValueError, match="not an undamaged .eqp file of equipot"):
        equipot.load(tmp_path / "foreign.eqp")
    header = json.dumps({"format": POTENTIAL.format + 1})
    tensors = {"w": np.zeros(2)}
    save_file(tensors, tmp_path / "newer.eqp", {"equipot": header, "sha256": digest(header, tensors)})
    with pytest.raises(ValueError, match="newer than this equipot reads"):
        equipot.load(tmp_path / "newer.eqp")
    with pytest.raises(FileNotFoundError, match="no such file"):
        equipot.load(tmp_path / "nowhere.eqp")


@pytest.mark.parametrize("change", ["list", "text", "format", "term", "metadata", "energies", "field"])
def test_another_content_is_told_in_one_line(file, change):
    from safetensors.numpy import load_file, save_file

    from equipot.artifact import digest

    tensors = load_file(file)
    with safetensors.safe_open(file, "numpy") as stored:
        header = json.loads(stored.metadata()["equipot"])
    if change == "format":
        del header[change]
    elif change in ("term", "metadata"):
        del header["record"][change]
    elif change == "energies":
        header["record"]["metadata"]["atomic_energies"] = [1]
    elif change == "field":
        header["record"]["metadata"]["colour"] = "red"
    text = {"list": "[1]", "text": "{"}.get(change, json.dumps(header))
    save_file(tensors, file, {"equipot": text, "sha256": digest(text, tensors)})
    with pytest.raises(ValueError, match=r"a\.eqp: not a (potential|file) as equipot writes it"):
        equipot.load(file)
