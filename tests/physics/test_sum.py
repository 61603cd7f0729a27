"""Sums of terms: energies, forces, what is trained, what a config says, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import equipot
from equipot import config
from equipot.data.batch import pad
from equipot.extent import extent_of
from equipot.metadata import Metadata, Method
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.nn.radial import Radial
from equipot.physics.charges import Equilibrated, PerSpecies, Predicted
from equipot.physics.dispersion import ATM, D3
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.sum import Sum, add
from equipot.physics.zbl import ZBL
from equipot.potential import Potential, evaluate, initial
from equipot.quantities import DIPOLE, DISPERSION_ENERGY, ELECTROSTATIC_ENERGY
from equipot.structure import Structure
from equipot.term import Atomic, Term
from equipot.training.config import TrainConfig

MODEL = MACE(3.5, elements=(1, 8), channels=3, l_max=1, correlation=1, layers=1, radial=Radial(mlp=(4,)))
WATER = Structure([8, 1, 1], [[0, 0, 0], [0.76, 0, 0], [-0.24, 0.73, 0]])
"""With bonds so short that the covalent radii overlap."""
PARTS = (
    Electrostatics(cutoff=3.5, charges=PerSpecies((0.4, -0.8)), elements=(1, 8)),
    D3(functional="pbe", cutoff=6.0, elements=(1, 8)),
    ATM(cutoff=5.0, elements=(1, 8)),
)
WANT = ("energies", "forces", "latent")


@pytest.fixture
def network(double_precision):
    free = Metadata(((1, -13.0), (8, -430.0)))
    made = fresh(MODEL, pad([WATER], 3.5), jax.random.key(0), free, shift=[0.1, -0.3], avg_num_neighbors=2.0)
    return made.astype("float64")


def seen(potential):
    return evaluate(potential, pad([WATER], potential.cutoff, dtype=np.float64), WANT)


def test_a_sum_of_potentials_is_the_sum_of_their_answers(network):
    others = Potential(ZBL(cutoff=2.0), {}, Metadata(((1, 1.0), (6, 5.0), (8, 2.0))))
    both = add([network, others], factors=(0.5, 2.0))
    assert both.cutoff == 3.5 and dict(both.metadata.atomic_energies) == {1: -4.5, 8: -211.0}
    one, two = seen(network), evaluate(others, pad([WATER], 2.0, dtype=np.float64), ("energies", "forces"))
    found = seen(both)
    assert abs(float(two.interaction[0])) > 0.1
    np.testing.assert_allclose(found.forces, 0.5 * one.forces + 2 * two.forces, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.interactions, 0.5 * one.interactions + 2 * two.interactions, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.latent, one.latent)


def test_parts_of_the_energy_are_added_as_the_energy_is(network):
    """Electrostatics and two corrections for dispersion in a list, against the terms alone and against what is left."""
    graph = jax.tree.map(jnp.asarray, pad([WATER], 3.5, extent=extent_of([WATER], 0.0)))
    made = lambda term: Potential(term, initial(term, jax.random.key(0), graph), network.metadata).astype("float64")
    parts = list(map(made, PARTS))
    both = add([network, *parts], factors=(1.0, 0.5, 2.0, 3.0))
    charged, *dispersive = (float(equipot.evaluate(part, WATER, want=("energy",)).interaction[0]) for part in parts)
    (out,) = equipot.evaluate_each(both, WATER, want=("energy", "electrostatic_energy", "dispersion_energy"))
    assert out[ELECTROSTATIC_ENERGY] == pytest.approx(0.5 * charged, abs=1e-12) and abs(charged) > 0.1
    assert out[DISPERSION_ENERGY] == pytest.approx(2 * dispersive[0] + 3 * dispersive[1], abs=1e-12)
    local = float(equipot.evaluate(network, WATER, want=("energy",)).interaction[0])
    assert out.interaction - out[ELECTROSTATIC_ENERGY] - out[DISPERSION_ENERGY] == pytest.approx(local, abs=1e-10)
    calculator = both.calculator()
    calculator.calculate(WATER.to_ase())
    assert calculator.results["dispersion_energy"] == pytest.approx(float(out[DISPERSION_ENERGY]), abs=1e-5)


def test_repulsion_inside_a_network_and_beside_it_are_the_same(network):
    inside = network.replace(term=MODEL.clone(repulsion=ZBL()))
    radii = {"radii": np.array([0.31, 0.66])}
    inside = inside.replace(variables={**inside.variables, "constants": inside.variables["constants"] | radii})
    beside = add([network, Potential(ZBL(cutoff=3.5), {}, network.metadata)])
    np.testing.assert_allclose(seen(beside).forces, seen(inside).forces, rtol=0, atol=1e-12)


def test_a_frozen_term_keeps_its_variables_and_is_not_trained(network, tmp_path):
    new = fresh(MODEL, pad([WATER], 3.5), jax.random.key(1), network.metadata).astype("float64")
    delta = add([network, new], frozen=(0,))
    assert set(delta.variables["params"]) == {"terms_1"}
    np.testing.assert_allclose(seen(delta).forces, seen(network).forces + seen(new).forces, rtol=0, atol=1e-12)
    assert seen(delta).latent.shape[1] == 2 * seen(new).latent.shape[1]
    equipot.save(delta, tmp_path / "delta.eqp")
    again = equipot.load(tmp_path / "delta.eqp")
    assert again.term == delta.term
    np.testing.assert_array_equal(seen(again).forces, seen(delta).forces)


def test_statistics_reach_the_networks_and_the_shift_only_the_first(double_precision):
    made = fresh(
        Sum((LennardJones(), MODEL, MODEL), cutoff=3.5), pad([WATER], 3.5), jax.random.key(0), Metadata(),
        scale=[2.0, 3.0], shift=[0.1, -0.3], avg_num_neighbors=4.0,
    )  # fmt: skip
    constants = made.variables["constants"]
    for name, shift in (("terms_1", [0.1, -0.3]), ("terms_2", [0, 0])):
        np.testing.assert_allclose(constants[name]["scale"], [2, 3])
        np.testing.assert_allclose(constants[name]["shift"], shift, atol=1e-7)
        assert constants[name]["avg_num_neighbors"] == 4
    assert constants["terms_0"]["sigma"] == pytest.approx(3.4)


def test_a_list_in_a_config_is_a_sum():
    text = {"data": {"train": "a.xyz"}, "model": ["MACE", {"kind": "ZBL", "cutoff": 2.0}]}
    model = config.build(TrainConfig, text, overrides=["model.0.channels=8"]).model
    assert model == Sum((MACE(channels=8), ZBL(cutoff=2.0))) and model.cutoff is None and model.needs == ()
    filled = model.clone(cutoff=4.5, elements=(1, 8))
    assert [term.cutoff for term in filled.terms] == [4.5, 2.0] and filled.terms[0].elements == (1, 8)
    assert config.build(Term, config.dump(filled)) == filled and filled.clone(elements=(1, 6, 8)).terms[0].elements == (1, 6, 8)


class Charges(Term):
    def __call__(self, graph, vectors):
        return Atomic(0 * graph.numbers * vectors[:, 0, 0], charges=0.0 * graph.numbers)


@pytest.mark.parametrize(
    ("terms", "fields", "message"),
    [
        ((), {}, "at least one term"),
        ((MODEL,), {"factors": (1.0, 2.0)}, "factors has 2 numbers for 1 terms"),
        ((MODEL,), {"frozen": (1,)}, "there is no term 1"),
        ((MODEL,), {"cutoff": 4.0}, "cutoff 4.0 Å of a Sum is not the largest of its terms, 3.5 Å"),
        ((MODEL, MODEL.clone(elements=(6,))), {}, "elements of the terms differ"),
        ((MODEL.clone(heads=("a", "b")),), {"frozen": (0,)}, "MACE is frozen and has several heads"),
        ((MODEL.clone(heads=("a", "b")), MODEL.clone(heads=("a", "c"))), {}, "heads differ"),
    ],
)
def test_what_a_sum_refuses(terms, fields, message):
    with pytest.raises(ValueError, match=message):
        Sum(terms, **fields)


def test_charges_are_those_of_one_term():
    with pytest.raises(ValueError, match="more than one term of the Sum provides charges"):
        seen(Potential(Sum((Charges(cutoff=2.0), Charges(cutoff=2.0))), {}))


class Dipolar(LennardJones):
    """A neighbour of number Z at v adds Z v to the dipole."""

    provides = (DIPOLE,)

    def __call__(self, graph, vectors):
        weight = jnp.where(graph.slot_mask, graph.numbers[graph.neighbors], 0)
        dipole = (weight[..., None] * vectors).sum(axis=1)
        return Atomic(super().__call__(graph, vectors).energy, others={"dipole": dipole})


def test_what_a_term_provides_reaches_the_sum():
    total, graph = Sum((LennardJones(3.5), Dipolar(3.5)), factors=(1.0, 0.5)), pad([WATER], 3.5)
    assert total.provides == (DIPOLE,)
    made = Potential(total, initial(total, jax.random.key(0), graph))
    # From O: two bonds of Z = 1; from each H: one of Z = 8 to O, and one of Z = 1 to the other, which cancel.
    bonds = WATER.positions[1:] - WATER.positions[0]
    np.testing.assert_allclose(evaluate(made, graph, ("dipole",)).others["dipole"][0], -7 * bonds.sum(axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match="terms: more than one provides dipole; keep one of them"):
        Sum((Dipolar(3.5), Dipolar(3.5)))


@pytest.mark.parametrize("cutoff", [0.0, -3.0, np.nan, np.inf])
def test_a_cutoff_that_is_none(cutoff):
    for make in (lambda: MACE(cutoff=cutoff), lambda: ZBL(cutoff=cutoff), lambda: Sum((MACE(), ZBL()), cutoff=cutoff)):
        with pytest.raises(ValueError, match=f"cutoff {cutoff:g} Å of .* must be positive and finite"):
            make()


def test_a_repulsion_without_a_cutoff_ends_by_itself():
    """At the sum of the covalent radii: the list is no longer than the others need."""
    model = Sum((MACE(cutoff=4.5), ZBL()))
    assert model.cutoff is None
    known = model.clone(elements=(1, 8))
    assert known.cutoff == 4.5 and known.terms[1].cutoff == pytest.approx(2 * 0.66)
    assert Sum((MACE(cutoff=1.0, elements=(8,)), ZBL())).cutoff == pytest.approx(2 * 0.66)
    same = [Potential(zbl, {}, Metadata(((1, 0.0), (8, 0.0)))) for zbl in (known.terms[1], ZBL(cutoff=4.5))]
    graph = pad([WATER], 4.5)
    assert float(evaluate(same[0], graph).interaction[0]) == float(evaluate(same[1], graph).interaction[0]) > 0


def test_what_would_be_counted_twice_is_refused():
    charges = Electrostatics(base=MODEL, charges=PerSpecies((0.4, -0.8)))
    triples, elements = ATM(cutoff=5.0, elements=(1, 8)), (1, 8)
    both = D3(functional="pbe", cutoff=6.0, elements=elements, three_body=ATM(cutoff=5.0, elements=elements))
    gfn = Metadata(((1, 0.0), (8, 0.0)), subtracted=Method("tblite", '{"method": "GFN2-xTB"}'))
    d3 = D3(functional="pbe", cutoff=6.0, elements=elements)
    of = lambda term, metadata: Potential(term, {}, metadata)
    cases = {
        "base has charges already": lambda: Electrostatics(base=charges, charges=PerSpecies((0.4, -0.8))),
        "more than one corrects the dispersion of triples": lambda: Sum((both, triples)),
        "has dispersion already": lambda: add([of(MODEL, gfn), of(d3, Metadata(((1, 0.0), (8, 0.0))))]),
        "must be numbers": lambda: Sum((MODEL,), factors=(float("nan"),)),
        "names a term twice": lambda: Sum((MODEL, triples), frozen=(0, 0)),
        r"charges.values \[nan, 1.0\]": lambda: PerSpecies((float("nan"), 1.0)),
        "s9 -1": lambda: ATM(s9=-1.0),
        r"hidden \[0\]": lambda: Predicted(hidden=(0,)),
        "steps 0 must": lambda: Equilibrated(steps=0),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_dispersion_beside_a_method_that_has_some_is_refused_before_training():
    settings = {
        "data": {"train": "t.xyz", "subtract": {"calculator": "dftd3", "method": "PBE"}},
        "model": [{"kind": "MACE", "cutoff": 4.0}, {"kind": "D3", "functional": "pbe"}],
    }
    with pytest.raises(ValueError, match="dftd3 .* has dispersion already"):
        config.build(TrainConfig, settings)
