"""A compressed potential is the original to what its splines leave, obeys the same laws, and is an ordinary file."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from subjects import SUBJECTS

import equipot
from equipot import cli, eqp
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Head, Metadata
from equipot.models import fresh
from equipot.models.compress import compress
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.models.network import Network
from equipot.nn.interaction import Attention, NonLinear, Residual
from equipot.nn.normalize import Density
from equipot.nn.radial import Agnesi, OnWeights, Radial, Splines
from equipot.physics.charges import Predicted
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.guard import Guarded, Wall, guard
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.sum import add
from equipot.potential import Potential, evaluate
from equipot.structure import Structure
from equipot.term import walk
from equipot.training.beginning import Trained
from equipot.training.run import trained_text
from equipot.workflows.compression import deviations

ELEMENTS = (11, 17)
RANDOM = (jax.random.key(0), Metadata(atomic_energies=tuple((z, -1.0 * z) for z in ELEMENTS)))
SMALL = {"cutoff": 4.0, "elements": ELEMENTS, "channels": 3}
TERMS = {
    "mace": MACE(**SMALL, l_max=1, correlation=1, radial=Radial(mlp=(8, 8))),
    "mace-transform": MACE(**SMALL, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(8,), transform=Agnesi())),
    "mace-gated": MACE(
        **SMALL, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(8,), envelope_on=OnWeights()), first=NonLinear()
    ),
    "mace-density": MACE(**SMALL, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(8,)), first=Residual(Density())),
    "nequip": NequIP(**SMALL, l_max=1, layers=2, radial=Radial(mlp=(8,))),
}


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Deviations are those of the splines, not of rounding."""


def salt() -> Structure:
    atoms = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    atoms.rattle(0.1, seed=1)
    return Structure.from_ase(atoms, source="rattled salt")


def potential_of(name: str) -> Potential:
    graph = pad([salt()], 4.0)
    metadata = Metadata(atomic_energies=tuple((z, -1.0 * z) for z in ELEMENTS))
    return fresh(TERMS[name], graph, jax.random.key(0), metadata, avg_num_neighbors=12.0).astype("float64")


@pytest.mark.parametrize("name", TERMS)
def test_deviations_fall_with_the_width_of_the_intervals(name):
    potential = potential_of(name)
    coarse, fine = (compress(potential, intervals) for intervals in (48, 96))
    # Quintic splines: values to the sixth order, slopes to the fifth.
    assert fine.weights < coarse.weights / 25 and fine.slopes < coarse.slopes / 12
    found = [deviations(potential, c.potential, [salt()]) for c in (coarse, fine)]
    assert found[1]["forces"] < found[0]["forces"] / 8 and found[1]["forces"] < 2e-3
    assert 0 < found[1]["energy"] < 1e-5


@pytest.mark.parametrize("kind", ["electrostatics", "guarded", "sum", "frozen"])
def test_networks_within_other_terms_are_compressed(kind):
    """Those of a base, of a guarded base, and of a list, trained and frozen ones; deviations fall as those of one network."""
    pair = potential_of("mace"), potential_of("nequip")
    graph = lambda term: pad([salt()], 4.0, extent=extent_of([salt()], term.longest_wave))
    wrapped = lambda term: fresh(term, graph(term), *RANDOM).astype("float64")
    bare = TERMS["nequip"].clone()
    whole = {
        "electrostatics": lambda: wrapped(Electrostatics(base=Guarded(base=bare), charges=Predicted())),
        "guarded": lambda: guard(pair[1], Wall()),
        "sum": lambda: add(pair),
        "frozen": lambda: add((guard(pair[0], Wall()), pair[1]), frozen=(0,)),
    }[kind]()
    coarse, fine = (compress(whole, intervals) for intervals in (24, 96))
    found = [deviations(whole, c.potential, [salt()]) for c in (coarse, fine)]
    assert 1e-6 < found[1]["forces"] < found[0]["forces"] / 30
    networks = [term for term in walk(fine.potential.term) if isinstance(term, Network)]
    assert len(networks) == (2 if kind in ("sum", "frozen") else 1)
    assert all(network.radial.table == Splines(96) for network in networks)
    with pytest.raises(ValueError, match="compressed already, on 96 intervals"):
        compress(fine.potential)


def test_deviations_are_of_what_was_measured():
    """No stress where there is none, no deviation from what is no number, and the worst of all heads."""
    whole = potential_of("nequip")
    fast = compress(whole, 16).potential
    molecule = salt().replace(pbc=np.zeros(3, bool), cell=np.zeros((3, 3)))
    assert set(deviations(whole, fast, [molecule])) == {"energy", "forces"}
    fused = molecule.replace(positions=np.repeat(molecule.positions[:4], 2, axis=0))
    with pytest.raises(ValueError, match="closer than 0.1"):
        deviations(whole, fast, [molecule, fused])

    term = NequIP(**SMALL, l_max=1, layers=1, radial=Radial(mlp=(8,)), heads=("one", "other"))
    energies = tuple((z, -1.0 * z) for z in ELEMENTS)
    metadata = Metadata(atomic_energies=energies, heads=(Head("one", energies), Head("other", energies)))
    graph = pad([salt().replace(head=0)], 4.0)
    whole = fresh(term, graph, jax.random.key(0), metadata, avg_num_neighbors=12.0).astype("float64")
    fast = compress(whole, 16).potential
    alone = [deviations(whole.head(name), fast.head(name), [salt()]) for name in ("one", "other")]
    both = deviations(whole, fast, [salt()])
    assert alone[0] != alone[1]
    assert both == pytest.approx({name: max(one[name] for one in alone) for name in both}, rel=1e-6)


def test_fine_tuning_says_that_splines_stay():
    whole = potential_of("mace")
    for potential, said in ((whole, False), (compress(whole, 16).potential, True)):
        text = trained_text(potential, Trained(potential.variables["params"]))
        assert text.startswith("trained: ") and ("its radial splines stay as they are" in text) == said


def test_forces_are_minus_the_gradient_and_vanish_smoothly():
    potential = compress(potential_of("mace"), 16).potential
    graph = pad([salt()], 4.0, dtype=np.float64)
    run = jax.jit(lambda r: evaluate(potential, graph.replace(positions=r), ("energy", "forces")))
    step = np.zeros(graph.positions.shape)
    step[1, 2] = 1e-5
    slope = (run(graph.positions + step).interaction[0] - run(graph.positions - step).interaction[0]) / 2e-5
    assert abs(float(slope + run(graph.positions).forces[1, 2])) < 1e-7 * float(jnp.abs(run(graph.positions).forces).max())
    splines = Splines(16)
    table = np.asarray(potential.variables["constants"]["interaction1"]["convolution"]["radial"]["table"])
    value = lambda r: (lambda start, basis: jnp.einsum("q,qj->j", basis, table[start + np.arange(6)]))(*splines(r, 4.0))
    for derivative in (value, jax.jacfwd(value), jax.jacfwd(jax.jacfwd(value))):
        assert float(jnp.abs(derivative(jnp.asarray(4.0))).max()) < 1e-9 * max(1.0, float(np.abs(table).max()))


def test_what_cannot_be_compressed_is_refused():
    with pytest.raises(ValueError, match="LennardJones has no radial network"):
        compress(Potential(LennardJones(cutoff=5.0), {}))
    with pytest.raises(ValueError, match="compressed already, on 16 intervals"):
        compress(compress(potential_of("mace"), 16).potential)
    with pytest.raises(ValueError, match="4 is too coarse"):
        compress(potential_of("mace"), 4)
    term = MACE(**SMALL, l_max=1, correlation=1, radial=Radial(mlp=(8,), envelope_on=OnWeights()), others=Attention())
    graph = pad([salt()], 4.0)
    attentive = fresh(term, graph, jax.random.key(0), Metadata(atomic_energies=((11, 0.0), (17, 0.0))))
    with pytest.raises(ValueError, match="cannot be tabulated"):
        compress(attentive)


def test_from_the_command_line(tmp_path, capsys):
    eqp.save(potential_of("nequip").astype("float32"), tmp_path / "whole.eqp")
    assert cli.main(["compress", str(tmp_path / "whole.eqp"), "-o", str(tmp_path / "fast.eqp"), "--intervals", "64"]) == 0
    assert "largest deviation from the original" in capsys.readouterr().out
    assert cli.main(["compress", str(tmp_path / "whole.eqp"), "-o", str(tmp_path / "whole.eqp")]) == 2
    assert "is the original" in capsys.readouterr().err
    fast, whole = (equipot.load(tmp_path / name, "float64") for name in ("fast.eqp", "whole.eqp"))
    assert fast.term.radial.table == Splines(64)
    assert deviations(whole, fast, [salt()])["energy"] < 1e-5


def test_precision_of_the_process_is_left_as_it_was():
    potential = potential_of("nequip").astype("float32")
    jax.config.update("jax_enable_x64", False)
    compress(potential, 8)
    assert not jax.config.jax_enable_x64


def test_a_network_without_convolutions_is_refused():
    with pytest.raises(ValueError, match="SchNet has no equipot.nn.tensor_product.Convolution"):
        compress(SUBJECTS["schnet"].potential)
