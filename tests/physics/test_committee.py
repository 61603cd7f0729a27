"""Committees: the mean and the spread of members that are evaluated apart."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from uncertain import CRYSTAL, FRAMES, MORE, made, unit

import equipot
from equipot import uncertainty
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.physics.committee import Committee, committee
from equipot.physics.guard import Wall, guard
from equipot.potential import evaluate
from equipot.uncertainty.members import members

WANT = ("energy", "forces", "stress", "energy_std", "forces_std", "stress_std", "novelty")


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Exactly means exactly."""


def with_energies(potential, **energies):
    """The potential with other energies of isolated atoms."""
    table = dict(potential.metadata.atomic_energies) | {int(z[1:]): e for z, e in energies.items()}
    return potential.replace(metadata=dataclasses.replace(potential.metadata, atomic_energies=tuple(sorted(table.items()))))


CASES = {
    "one architecture": lambda: [made("mace"), made("mace", 1), made("mace", 2)],
    "several": lambda: [made("nequip"), made("mace"), made("sum"), made("mace", 1)],
    "in space": lambda: [made("charged"), made("charged", 1), made("mace")],
    "other isolated atoms": lambda: [made("mace"), with_energies(made("mace", 1), z6=0.5, z1=-0.2)],
}


@pytest.mark.parametrize("name", CASES)
def test_mean_and_spread_are_those_of_the_members(name):
    apart = CASES[name]()
    model = unit(uncertainty.fit(committee(apart), [*MORE, CRYSTAL]))
    found = [equipot.evaluate(potential, CRYSTAL, want=WANT[:3]) for potential in apart]
    out = equipot.evaluate(model, CRYSTAL, want=WANT)
    stacked = {row: np.stack([np.asarray(getattr(x, row)) for x in found]) for row in WANT[:3]}
    for row, values in stacked.items():
        np.testing.assert_allclose(getattr(out, row), values.mean(axis=0), atol=1e-9, err_msg=row)
    spread = lambda x, axes: np.sqrt(np.mean(np.var(x, axis=0, ddof=1), axis=axes))
    np.testing.assert_allclose(out.others["energy_std"], spread(stacked["energy"], ()), rtol=1e-7)
    np.testing.assert_allclose(out.others["forces_std"], spread(stacked["forces"], -1), rtol=1e-7)
    np.testing.assert_allclose(out.others["stress_std"], spread(stacked["stress"], (-1, -2)), rtol=1e-7)
    assert np.isfinite(out.others["novelty"]).all()
    alone = equipot.evaluate(model, FRAMES[0], want=("forces", "forces_std"))
    together = equipot.evaluate_each(model, [CRYSTAL, FRAMES[0]], want=("forces", "forces_std"))[1]
    np.testing.assert_allclose(together.others["forces_std"], alone.others["forces_std"], rtol=1e-9)
    np.testing.assert_allclose(together.forces, alone.forces, atol=1e-10)


def test_members_of_a_committee_spread_as_calibrated():
    model = unit(uncertainty.fit(committee(CASES["one architecture"]()), MORE), forces_std=1.7)
    out = equipot.evaluate(model, FRAMES[0], want=("energy", "forces", "forces_std"))
    found = equipot.evaluate_ensemble(members(model), FRAMES[0], want=("energy", "forces"))
    np.testing.assert_allclose(found.energy.mean(axis=0), out.energy, atol=1e-9)
    by_energy = equipot.evaluate_ensemble(members(model, "energy_std"), FRAMES[0], want="energy").energy
    ensemble = equipot.evaluate(model, FRAMES[0], want=("ensemble", "energy_std")).others
    np.testing.assert_allclose(ensemble["ensemble"], (by_energy - out.energy).T, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(np.mean(ensemble["ensemble"] ** 2)), ensemble["energy_std"][0], rtol=1e-8)
    spread = np.sqrt(np.mean((found.forces - out.forces[None]) ** 2, axis=(0, 2)))
    np.testing.assert_allclose(spread, out.others["forces_std"], rtol=1e-8)


def test_a_file_holds_a_committee(tmp_path):
    model = unit(uncertainty.fit(committee(CASES["several"]()), MORE))
    equipot.save(model, tmp_path / "committee.eqp")
    again = equipot.load(tmp_path / "committee.eqp")
    one, two = (equipot.evaluate(x, FRAMES[:2], want=("energy", "forces_std")) for x in (model, again))
    np.testing.assert_array_equal(one.energy, two.energy)
    np.testing.assert_array_equal(one.others["forces_std"], two.others["forces_std"])


def test_one_pass_gives_the_forces_of_all_members():
    """The backward pass of a committee is not made once for each member: as many operations as the members apart."""
    model = unit(uncertainty.fit(committee(CASES["one architecture"]()), MORE))
    graph = jax.tree.map(jnp.asarray, pad(FRAMES[:1], model.cutoff, dtype=np.float64, extent=extent_of(FRAMES[:1], None)))
    flops = lambda want: jax.jit(lambda g: evaluate(model, g, want)).lower(graph).compile().cost_analysis()["flops"]
    assert flops(("energy", "forces", "forces_std")) < 1.2 * flops(("energy", "forces"))


def test_what_is_no_committee_is_refused():
    one, other = made("mace"), made("mace", 1)
    level = other.replace(metadata=dataclasses.replace(other.metadata, level_of_theory="PBE"))
    cases = {
        "give at least 2 members": lambda: committee([one]),
        "differ in level_of_theory: none and PBE": lambda: committee([one, level]),
        "differ in elements": lambda: committee([one, with_energies(other, z7=0.0)]),
        "Spread is for a committee, and MACE is none": lambda: uncertainty.fit(one, MORE, method=uncertainty.Spread()),
        "LastLayer is for a single network": lambda: uncertainty.fit(
            committee([one, other]), MORE, method=uncertainty.LastLayer()
        ),
        "Guarded around a committee has no spread": lambda: uncertainty.fit(guard(committee([one, other]), Wall()), MORE),
        "members 0 and 1 of the committee are the same potential": lambda: committee([one, one]),
        "a committee of 1": lambda: Committee(terms=(one.term,)),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
