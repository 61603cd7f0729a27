"""Batching changes nothing but the rounding: whatever is in a list, however it is cut, whatever memory there is."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from subjects import SUBJECTS

import equipot
from equipot import memory
from equipot.data.batch import pad
from equipot.evaluation import TooLargeError, batched, evaluate_each
from equipot.metadata import Metadata
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential, evaluate, initial
from equipot.structure import Structure
from equipot.testing.systems import SYSTEMS

pytestmark = pytest.mark.usefixtures("double_precision")


def argon():
    """A pair potential in double precision, compiled in no time."""
    term = LennardJones(cutoff=5.0, epsilon=0.05, sigma=2.2)
    dimer = Structure.from_ase(Atoms("Ar2", positions=[[0, 0, 0], [2.5, 0, 0]]))
    variables = initial(term, jax.random.key(0), pad([dimer], 5.0))
    return Potential(term, variables, Metadata(atomic_energies=((18, -3.0),))).astype("float64")


def clusters(count, seed=0):
    """Molecules of two to five atoms and, in between, small crystals."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        if k % 7 == 3:
            out.append(bulk("Ar", "fcc", a=3.6, cubic=True))
            out[-1].rattle(0.1, seed=k)
        else:
            n = int(rng.integers(2, 6))
            grid = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)]) * 2.6
            out.append(Atoms(f"Ar{n}", grid[rng.permutation(8)[:n]] + rng.normal(0, 0.1, (n, 3))))
    return out


def great_cell():
    atoms = bulk("Ar", "fcc", a=3.6, cubic=True) * (5, 5, 5)
    atoms.rattle(0.1, seed=1)
    return atoms


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        for name in ("energy", "forces", "stress"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None), name
            if x is not None:
                np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10, err_msg=name)


def one_by_one(model, systems):
    return [evaluate_each(model, atoms)[0] for atoms in systems]


class Device:
    """Notes the batches that run, and is out of memory where one has more slots than it holds."""

    def __init__(self):
        self.graphs, self.needs, self.slots = [], [], float("inf")

    def wrap(self, call, needed):
        def run(model, graph):
            if graph.neighbors.size > self.slots:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating bytes.")
            self.graphs.append(graph)
            self.needs.append(needed)
            return call(model, graph)

        return run, needed

    @property
    def shapes(self):
        return {graph.neighbors.shape for graph in self.graphs}


@pytest.fixture
def device(monkeypatch):
    made, original = Device(), batched.compiled
    monkeypatch.setattr(batched, "compiled", lambda *arguments: made.wrap(*original(*arguments)))
    return made


def test_any_mixture_is_evaluated_as_each_by_itself(device, monkeypatch):
    model, order = SUBJECTS["mace"].potential, np.random.default_rng(0).permutation(3 * len(SYSTEMS)) % len(SYSTEMS)
    alone = jax.jit(evaluate)
    monkeypatch.setattr(batched, "SLOTS_PER_CORE", 300)
    found = evaluate_each(model, [SYSTEMS[k] for k in order])
    assert len(device.graphs) > 3 >= len(device.shapes)
    for k, out in zip(order, found, strict=True):
        structure, one = SYSTEMS[k], alone(model, SUBJECTS["mace"].graph(SYSTEMS[k]))
        np.testing.assert_allclose(out.interaction, one.interaction[0], rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(out.forces, one.forces[: len(structure)], rtol=0, atol=1e-10)
        assert (out.stress is None) == (not structure.pbc.any())
        if out.stress is not None:
            np.testing.assert_allclose(out.stress, one.stress[0], rtol=0, atol=1e-10)


def test_a_list_is_its_systems_one_after_the_other():
    model, frames = argon(), clusters(20)
    each = evaluate_each(model, frames, want=("energy", "forces", "energies"))
    out = equipot.evaluate(model, frames, want=("energy", "forces", "energies"))
    assert out.energy.shape == (20,) and out.forces.shape == (sum(map(len, frames)), 3) and out.stress is None
    np.testing.assert_array_equal(out.energy, [o.energy for o in each])
    np.testing.assert_array_equal(out.forces, np.concatenate([o.forces for o in each]))
    np.testing.assert_allclose([o.energies.sum() for o in each], out.energy, rtol=1e-12)
    crystals = frames[3::7]
    assert equipot.evaluate(model, crystals).stress.shape == (len(crystals), 3, 3)
    with pytest.raises(ValueError, match="no stress"):
        equipot.evaluate(model, frames, want="stress")
    with pytest.raises(ValueError, match="no systems"):
        equipot.evaluate(model, [])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_size_of_batches_can_be_set(device, batch_size):
    model, frames = argon(), clusters(13)
    found = evaluate_each(model, frames, batch_size=batch_size)
    assert len(device.graphs) >= 13 / batch_size and max(int(g.graph_mask.sum()) for g in device.graphs) == batch_size
    assert_same(found, evaluate_each(model, frames))
    for wrong in (0, 1.5, "4"):
        with pytest.raises(ValueError, match=f"batch_size {wrong!r} must be a whole number"):
            evaluate_each(model, frames, batch_size=wrong)


def test_one_great_cell_among_molecules(device, monkeypatch):
    model, frames = argon(), clusters(400)
    frames.insert(123, great_cell())
    monkeypatch.setattr(batched, "SLOTS_PER_CORE", 2**11)
    found = evaluate_each(model, frames)
    assert len(device.shapes) <= 3
    largest = max(device.graphs, key=lambda graph: graph.neighbors.size)
    assert largest.graph_mask.sum() == 1 and largest.num_atoms < 1.25 * 500
    some = [0, 122, 123, 124, 400]
    assert_same([found[k] for k in some], one_by_one(model, [frames[k] for k in some]))


def test_little_memory_means_many_batches(device, monkeypatch):
    model, frames = argon(), clusters(200)
    expected, few = evaluate_each(model, frames), len(device.graphs)
    available = max(device.needs) / 5
    monkeypatch.setattr(memory, "available", lambda device: available)
    monkeypatch.setattr(batched, "SMALL", 0)
    device.__init__()
    assert_same(evaluate_each(model, frames), expected)
    assert max(device.needs) <= batched.SHARE * available
    assert len(device.graphs) >= 5 * few and len(device.shapes) <= 3
    device.__init__()
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    with pytest.warns(UserWarning, match="atoms with up to .* neighbours need about .* GiB, but .* GiB are free"):
        assert_same(evaluate_each(model, frames[:3]), expected[:3])
    assert max(int(g.graph_mask.sum()) for g in device.graphs) == 1


def test_a_device_out_of_memory_gets_half_as_much(device):
    model, frames = argon(), clusters(60)
    expected = evaluate_each(model, frames)
    device.slots = max(graph.neighbors.size for graph in device.graphs) // 3
    device.graphs.clear()
    for batch_size in (None, 60):
        with pytest.warns(UserWarning, match="out of memory with .* structures in a batch: going on with half as many"):
            assert_same(evaluate_each(model, frames, batch_size=batch_size), expected)
    assert len(device.graphs) >= 6
    device.slots = 3
    with (
        pytest.raises(TooLargeError, match="structure of 5 atoms: 5 atoms with up to .* neighbours do not fit"),
        pytest.warns(UserWarning),
    ):
        evaluate_each(model, frames)


def test_what_comes_again_compiles_nothing():
    model, frames = argon(), clusters(31)
    evaluate_each(model, frames)
    compiled = batched._compiled.cache_info().misses
    for k, atoms in enumerate(frames):
        atoms.rattle(1e-9, seed=k)
    other = model.replace(metadata=Metadata(((18, -4.0),), citation="another"))
    assert evaluate_each(other, frames)[0].energy < evaluate_each(model, frames)[0].energy
    evaluate_each(model, frames[::-1])
    assert batched._compiled.cache_info().misses == compiled
    for k in range(1, 31):
        evaluate_each(model, frames[:k])
    assert batched._compiled.cache_info().misses - compiled <= 20


def test_bad_results_name_their_structure():
    frames = clusters(5)
    frames.insert(2, Atoms("Ar2", [[0, 0, 0], [0, 0, 0.0]], info={}))
    with pytest.raises(ValueError, match="closer than 0.1"):
        equipot.evaluate(argon(), frames)
    fused = Atoms("Ar2", [[0, 0, 0], [0, 0, 0.0]], cell=[9.0] * 3, pbc=True)
    for want in ("stress", "virials"):
        with pytest.raises(ValueError, match="closer than 0.1"):
            equipot.evaluate(argon(), fused, want=want)
    with pytest.raises(ValueError, match="closer than 0.1"):
        equipot.hessian_of(argon(), fused)
    with pytest.raises(ValueError, match="one system; got 2"):
        equipot.hessian_of(argon(), frames[:2])


@pytest.mark.parametrize("name", ["mace", "nequip"])
def test_an_ensemble_is_its_members(name):
    first = SUBJECTS[name].potential
    scale = lambda k: jax.tree.map(lambda x: x * (1 + 0.01 * k), first.variables)
    free = lambda k: Metadata(tuple((z, e - k) for z, e in first.metadata.atomic_energies))
    members = [first.replace(variables=scale(k), metadata=free(k)) for k in range(3)]
    want, some = ("energy", "forces", "stress", "energies"), SYSTEMS[1:4]
    out = equipot.evaluate_ensemble(members, some, want)
    for k, member in enumerate(members):
        alone = equipot.evaluate(member, some, want)
        for field in ("interaction", *want):
            np.testing.assert_allclose(getattr(out, field)[k], getattr(alone, field), rtol=1e-10, atol=1e-10, err_msg=field)
    assert out.energy.shape == (3, 3) and out.stress.shape == (3, 3, 3, 3)
    assert np.abs(out.forces[1] - out.forces[0]).max() > 1e-4


def test_members_must_be_of_a_kind():
    with pytest.raises(ValueError, match="potential 1 of the ensemble differs"):
        equipot.evaluate_ensemble([SUBJECTS["mace"].potential, argon()], SYSTEMS)
    with pytest.raises(ValueError, match="at least one"):
        equipot.evaluate_ensemble([], SYSTEMS)


def test_devices_share_the_batches():
    code = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
from test_batched import argon, assert_same, clusters
from equipot.evaluation import batched, evaluate_each
model, frames = argon(), clusters(60)
used, original = [], batched.compiled
def noted(job, m, graph, devices):
    used.append((len(devices), graph.neighbors.ndim))
    return original(job, m, graph, devices)
batched.compiled = noted
batched.SLOTS_PER_CORE = 250
several = evaluate_each(model, frames)
assert used and set(used) == {(2, 3)}, used
used.clear()
jax.config.update("jax_default_device", jax.local_devices()[1])
assert_same(evaluate_each(model, frames), several)
assert set(used) == {(1, 2)}, used
print("same")
"""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent / "laws"), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    assert done.stdout.strip() == "same", done.stderr
