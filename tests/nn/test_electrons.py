"""Total charge and unpaired electrons, spread over the atoms of a system."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schnet import SchNet

import equipot
from equipot import config
from equipot.data.batch import Shape, pad
from equipot.models.compress import compress
from equipot.models.heads import join
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.electrons import Electrons, numbers_of, shares
from equipot.nn.radial import Radial
from equipot.physics.sum import Sum
from equipot.physics.zbl import ZBL
from equipot.potential import interaction_energy
from equipot.term import Term
from equipot.testing.subject import Subject
from equipot.testing.systems import DIMER, MOLECULE, SLAB, TRICLINIC

TERMS = {
    "mace": MACE(cutoff=4.0, channels=4, l_max=1, correlation=2, radial=Radial(mlp=(6,)), electrons=Electrons(5)),
    "one layer": MACE(cutoff=4.0, channels=4, l_max=1, layers=1, radial=Radial(mlp=(6,)), electrons=Electrons(5)),
    "nequip": NequIP(cutoff=4.0, channels=4, l_max=1, layers=2, radial=Radial(mlp=(6,)), electrons=Electrons(5)),
}
STATES = ((2.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (0.0, 2.0), (0.3, 0.0))


@pytest.fixture(autouse=True)
def _precision(double_precision):
    pass


def without_electrons(potential):
    """The potential of the same variables, without those of the electrons."""
    variables = {
        collection: {name: tree for name, tree in trees.items() if name not in ("electrons", "electron_shift")}
        for collection, trees in potential.variables.items()
    }
    return potential.replace(term=potential.term.clone(electrons=None), variables=variables)


@pytest.mark.parametrize("name", TERMS)
def test_a_neutral_singlet_is_that_of_the_network_without_electrons(name):
    potential = Subject(TERMS[name]).potential
    bare = without_electrons(potential)
    assert bare.term.needs == () and potential.term.needs == ("charge", "spin")
    for system in (MOLECULE, SLAB, TRICLINIC):
        ours, theirs = (equipot.evaluate(p, system, ("energy", "forces")) for p in (potential, bare))
        np.testing.assert_allclose(ours.energy, theirs.energy, rtol=1e-15)
        np.testing.assert_allclose(ours.forces, theirs.forces, atol=1e-13)


@pytest.mark.parametrize("name", TERMS)
def test_every_state_has_an_energy_and_forces_of_its_own(name):
    potential = Subject(TERMS[name]).potential
    states = [MOLECULE, *(MOLECULE.replace(charge=q, spin=s) for q, s in STATES)]
    out = equipot.evaluate_each(potential, states, ("energy", "forces"))
    energies = np.array([o.energy for o in out])
    assert np.abs(energies[:, None] - energies)[~np.eye(len(states), dtype=bool)].min() > 1e-3
    assert all(np.abs(o.forces - out[0].forces).max() > 1e-4 for o in out[1:])


def test_shares_are_positive_and_sum_to_charge_and_spin():
    systems = [MOLECULE.replace(charge=-1.0, spin=1.0), SLAB, DIMER.replace(charge=2.5, spin=2.0)]
    graph = pad(systems, 4.0, Shape(20, 40, 4), np.float64)
    weights = jnp.asarray(np.random.default_rng(0).uniform(1e-6, 5, (20, 3)))
    for found in (shares(weights, graph), jax.jit(shares)(weights, graph)):
        sums = np.array([found[graph.node_graph == k].sum(axis=0) for k in range(3)])
        np.testing.assert_allclose(sums, [[0, 1, 1], [0, 0, 0], [2.5, 0, 2]], atol=1e-14)
        assert (found[:9, 1] > 0).all() and not found[15:].any() and np.isfinite(found).all()
    np.testing.assert_array_equal(numbers_of(graph)[3], 0)


def test_what_a_neutral_spectator_takes_of_a_charge():
    """Unlike systems far apart share a charge in the ratio of their weights: nothing of it, where the weights say so."""
    potential = Subject(TERMS["mace"]).potential
    ion = MOLECULE.replace(charge=1.0, spin=1.0)
    spectator = MOLECULE.replace(numbers=[29, 29], positions=[[0.0, 0.0, 50.0], [0.0, 0.0, 52.2]])
    places = np.concatenate([ion.positions, spectator.positions])
    both = ion.replace(numbers=[*ion.numbers, 29, 29], positions=places)

    def excess(bias):
        params = jax.tree.map(lambda x: x, dict(potential.params))
        params["electrons"] = {**params["electrons"], "bias": jnp.zeros((4, 3)).at[3].set(bias)}
        pair, *parts = equipot.evaluate_each(
            potential.replace(variables={**potential.variables, "params": params}), [both, ion, spectator], ("energy",)
        )
        return abs(pair.energy - sum(part.energy for part in parts))

    assert excess(0.0) > 1e-2
    assert excess(-30.0) < 1e-5
    neutral = equipot.evaluate_each(potential, [both.replace(charge=0.0, spin=0.0), MOLECULE, spectator], ("energy",))
    assert abs(neutral[0].energy - neutral[1].energy - neutral[2].energy) < 1e-10


def test_a_graph_of_padding_and_an_atom_alone_are_finite():
    potential = Subject(TERMS["nequip"]).potential.astype("float32")
    ion = MOLECULE.replace(numbers=[8], positions=[[0.0, 0.0, 0.0]], charge=-1.0, spin=1.0)
    graph = pad([ion], 4.0, Shape(3, 4, 3))
    energy, slope = jax.value_and_grad(lambda p: jnp.sum(interaction_energy(p, graph)))(potential)
    assert np.isfinite(energy) and all(np.isfinite(x).all() for x in jax.tree.leaves(slope.variables))


def test_a_file_a_config_and_a_sum_hold_electrons(tmp_path):
    potential = Subject(TERMS["mace"]).potential
    equipot.save(potential, tmp_path / "ion.eqp")
    again = equipot.load(tmp_path / "ion.eqp", "float64")
    ion = MOLECULE.replace(charge=1.0, spin=1.0)
    assert again.term == potential.term
    assert equipot.evaluate(again, ion, ("energy",)).energy == equipot.evaluate(potential, ion, ("energy",)).energy
    read = config.build(Term, {"kind": "NequIP", "electrons": {"width": 3}})
    assert read.electrons == Electrons(3) and config.build(Term, {"kind": "MACE", "electrons": {}}).electrons == Electrons()
    assert Sum((TERMS["mace"], ZBL(cutoff=4.0))).needs == ("charge", "spin")
    with pytest.raises(ValueError, match="electrons.*width 0 must be at least 1"):
        config.build(Term, {"kind": "MACE", "electrons": {"width": 0}})


def test_compressed_and_headed_potentials_see_electrons():
    potential = Subject(TERMS["mace"]).potential
    other = potential.replace(metadata=dataclasses.replace(potential.metadata, level_of_theory="another"))
    headed = join({"a": potential, "b": other})
    ion = MOLECULE.replace(charge=1.0, spin=1.0)
    expected = equipot.evaluate(potential, ion, ("energy",)).energy
    for same, limit in ((headed.head("b"), 1e-12), (compress(potential).potential, 1e-3)):
        assert equipot.evaluate(same, ion, ("energy",)).energy == pytest.approx(expected, abs=limit)


def test_a_network_that_does_not_use_electrons_says_so():
    with pytest.raises(ValueError, match="SchNet does not use electrons .*leave them out"):
        Subject(SchNet(cutoff=4.0, electrons=Electrons())).potential  # noqa: B018
