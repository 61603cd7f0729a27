"""Several heads on one body: each says exactly what it says alone, and nobody is asked without a choice."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from ase.build import bulk, molecule
from flax.traverse_util import flatten_dict

import equipot
from equipot.data.batch import Shape, pad
from equipot.data.loader import plan_evaluation, prepare
from equipot.extent import extent_of
from equipot.finetune.elements import extend
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.heads import in_heads, join
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial
from equipot.physics.charges import Equilibrated, Predicted
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.guard import Guarded
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.sum import Sum, add
from equipot.physics.zbl import ZBL
from equipot.potential import Potential, evaluate
from equipot.structure import Structure

SYSTEMS = (Structure.from_ase(molecule("CH3CH2OH")), Structure.from_ase(bulk("Cu", cubic=True).repeat((1, 1, 2))))
ELEMENTS = (1, 6, 8, 29)
TERMS = {
    "mace": MACE(cutoff=3.5, elements=ELEMENTS, channels=3, l_max=1, correlation=2, radial=Radial(mlp=(4,))),
    "mace-biased": MACE(
        cutoff=3.5, elements=ELEMENTS, channels=3, l_max=1, correlation=1, readout_bias=True, radial=Radial(mlp=(4,))
    ),
    "nequip": NequIP(cutoff=3.5, elements=ELEMENTS, channels=3, l_max=1, layers=2, radial=Radial(mlp=(4,))),
    "nequip-direct": NequIP(
        cutoff=3.5, elements=ELEMENTS, channels=3, l_max=1, layers=2, readout=None, radial=Radial(mlp=(4,))
    ),
}  # fmt: skip
TERMS |= {
    "electrostatics": Electrostatics(base=TERMS["mace"].clone(), charges=Predicted()),
    "electrostatics-guarded": Electrostatics(base=Guarded(base=TERMS["nequip"].clone()), charges=Equilibrated()),
    "sum": Sum((TERMS["mace"].clone(), ZBL(cutoff=2.0))),
}


@pytest.fixture(autouse=True)
def _precision(double_precision):
    """Exactly means exactly."""


@functools.cache
def singles(name):
    """Two potentials that differ in their readouts and constants only."""
    graph = pad(SYSTEMS, 3.5, extent=extent_of(SYSTEMS, TERMS[name].longest_wave))
    made = [
        fresh(TERMS[name], graph, jax.random.key(0), Metadata(free, level), scale=scale, shift=shift, avg_num_neighbors=9.0)
        for free, level, scale, shift in (
            (tuple((z, -1.0 * z) for z in ELEMENTS), "PBE", 0.5, [0.1, 0.2, 0.3, 0.4]),
            (tuple((z, -2.0 * z) for z in ELEMENTS[:3]), "r2SCAN", [0.6, 0.7, 0.8, 0.9], 0.0),
        )
    ]
    pbe, r2scan = (potential.astype("float64") for potential in made)
    moved = lambda path, x: 1.3 * x + 0.1 if any("readout" in str(key) for key in path) else x
    r2scan = r2scan.replace(variables=jax.tree_util.tree_map_with_path(moved, r2scan.variables))
    return {"pbe": pbe, "r2scan": r2scan}


@pytest.mark.parametrize("name, readouts", [("mace", {"readout0", "readout1"}), ("nequip", {"readout"})])
def test_what_belongs_to_a_head_has_a_scope_of_its_own(name, readouts):
    variables = join(singles(name)).variables
    assert variables["params"]["heads"].keys() == readouts
    assert variables["constants"]["heads"].keys() == {"scale", "shift"}
    assert all(leaf.shape[0] == 2 for tree in variables.values() for leaf in jax.tree.leaves(tree["heads"]))
    alone = flatten_dict(singles(name)["pbe"].variables, sep="/")
    for path, leaf in flatten_dict(variables, sep="/").items():
        single = alone[path.replace("heads/", "", 1)]
        assert np.array_equal(leaf[0] if in_heads(path) else leaf, single)


def test_a_fresh_potential_has_the_constants_of_each_head():
    graph = pad([s.replace(head=0) for s in SYSTEMS], 3.5)
    made = fresh(TERMS["mace"].clone(heads=("a", "b")), graph, jax.random.key(0), Metadata(), scale=[1, 2, 3, 4], shift=0.5)
    assert made.variables["constants"]["heads"]["scale"].tolist() == [[1, 2, 3, 4]] * 2
    assert made.variables["constants"]["heads"]["shift"].tolist() == [[0.5] * 4] * 2


@pytest.mark.parametrize("name", TERMS)
def test_a_mixed_batch_gives_what_each_head_gives_alone(name):
    alone = singles(name)
    joined = join(alone)
    frames = [s.replace(head=head) for s in SYSTEMS for head in (1, 0)]
    graph = pad(frames, 3.5, Shape(48, 48, 5), np.float64, extent=joined.extent(frames))
    compiled = jax.jit(evaluate, static_argnames="want")
    found = compiled(joined, graph, want=("energy", "forces", "stress"))
    first = 0
    for k, frame in enumerate(frames):
        single = list(alone.values())[frame.head]
        graph = pad([frame.replace(head=None)], 3.5, dtype=np.float64, extent=single.extent([frame]))
        expected = compiled(single, graph, want=("energy", "forces", "stress"))
        assert float(found.interaction[k]) == pytest.approx(float(expected.interaction[0]), abs=1e-12)
        np.testing.assert_allclose(found.forces[first : first + len(frame)], expected.forces, atol=1e-12)
        if frame.pbc.any():
            np.testing.assert_allclose(found.stress[k], expected.stress[0], atol=1e-13)
        first += len(frame)
    # Otherwise the choice of head would not show.
    assert abs(float(found.interaction[0] - found.interaction[1])) > 1e-3


@pytest.mark.parametrize("name", TERMS)
def test_a_head_that_is_picked_is_what_was_joined(name):
    for head, single in singles(name).items():
        picked = join(singles(name)).head(head)
        assert picked.term == single.term and picked.metadata == single.metadata and picked.heads == ()
        assert jax.tree.structure(picked.variables) == jax.tree.structure(single.variables)
        assert all(map(np.array_equal, jax.tree.leaves(picked.variables), jax.tree.leaves(single.variables)))


def test_a_sum_keeps_the_heads_of_its_members():
    """E0 and levels of each head are sums; elements that are added are known to every head."""
    alone, wall = singles("mace"), Potential(ZBL(cutoff=2.0), {}, Metadata(tuple((z, 0.5) for z in ELEMENTS), "ZBL"))
    both = add([join(alone), wall], factors=(2.0, 1.0))
    assert both.heads == ("pbe", "r2scan")
    for k, (name, single) in enumerate(alone.items()):
        expected = add([single, wall], factors=(2.0, 1.0))
        assert both.head(name).metadata == expected.metadata
        system = SYSTEMS[0]
        found = [
            equipot.evaluate(p, s, want=("energy",)).energy for p, s in ((both, system.replace(head=k)), (expected, system))
        ]
        np.testing.assert_allclose(*found, atol=1e-10)
    grown = extend(join(alone), {7: 6})
    assert 7 in grown.elements and all(7 in grown.head(name).elements for name in alone)


def test_a_file_holds_all_heads_and_a_name_chooses_one(tmp_path):
    alone = singles("mace")
    joined, path = join(alone), tmp_path / "both.eqp"
    equipot.save(joined, path)
    assert equipot.load(path).metadata == joined.metadata and equipot.load(path).heads == ("pbe", "r2scan")
    chosen = equipot.load(f"{path}@r2scan")
    assert chosen.metadata.level_of_theory == "r2SCAN" and chosen.elements == (1, 6, 8)
    energy = equipot.evaluate(chosen, SYSTEMS[0], want=("energy",)).energy
    assert energy == equipot.evaluate(alone["r2scan"], SYSTEMS[0], want=("energy",)).energy
    with pytest.raises(ValueError, match=r"both.eqp: the potential has no head 'hse': its heads are pbe, r2scan"):
        equipot.load(f"{path}@hse")
    equipot.save(alone["pbe"], tmp_path / "one.eqp")
    with pytest.raises(ValueError, match=r"one.eqp: the potential has no head 'pbe': it has only one level of theory"):
        equipot.load(f"{tmp_path / 'one.eqp'}@pbe")


def test_heads_without_a_description_are_not_written(tmp_path):
    joined = join(singles("mace"))
    mute = joined.replace(metadata=dataclasses.replace(joined.metadata, heads=()))
    with pytest.raises(ValueError, match=r"the term has the heads pbe, r2scan, the metadata describe none"):
        equipot.save(mute, tmp_path / "both.eqp")
    assert not list(tmp_path.iterdir())


def test_heads_may_be_a_list_and_another_field_of_this_name_is_none(tmp_path):
    joined = join(singles("mace"))
    listed = joined.replace(term=joined.term.clone(heads=["pbe", "r2scan"]))
    equipot.save(listed, tmp_path / "both.eqp")
    assert equipot.load(tmp_path / "both.eqp").heads == listed.heads == ("pbe", "r2scan")
    attention = Potential(type("Term", (LennardJones,), {"heads": 4})(cutoff=3.5), {})
    assert attention.heads == ()


@pytest.mark.parametrize("head", [None, 1])
def test_a_device_without_a_frame_has_what_the_others_have(head):
    frames = prepare([s.replace(head=head) for s in SYSTEMS], 3.5)
    loader = plan_evaluation(frames, dict.fromkeys(ELEMENTS, 0.0), 2, 2, np.float64)
    batch = loader.build(((0,), ()))
    assert (batch.graph.head is None) == (head is None)


def test_nobody_is_asked_without_a_choice():
    joined = join(singles("mace"))
    with pytest.raises(ValueError, match=r"several heads, pbe, r2scan: choose one, with potential.head\('pbe'\)"):
        equipot.evaluate(joined, SYSTEMS[0])
    with pytest.raises(ValueError, match="several heads, pbe, r2scan: choose one"):
        joined.calculator().calculate(SYSTEMS[0].to_ase())
    mixed = [SYSTEMS[0].replace(head=1), SYSTEMS[1]]
    with pytest.raises(ValueError, match="has no head, but others in its batch do"):
        pad(mixed, 3.5)


def test_heads_share_their_body():
    pbe, r2scan = singles("mace").values()
    moved = jax.tree_util.tree_map_with_path(lambda path, x: x + 1 if "embedding" in str(path) else x, r2scan.variables)
    with pytest.raises(ValueError, match="r2scan and pbe differ in params/embedding/w; heads share everything but"):
        join({"pbe": pbe, "r2scan": r2scan.replace(variables=moved)})
    with pytest.raises(ValueError, match="r2scan and pbe are not the same model"):
        join({"pbe": pbe, "r2scan": r2scan.replace(term=r2scan.term.clone(cutoff=3.0))})


def test_names_of_heads():
    with pytest.raises(ValueError, match="heads: 'two words' is not one word"):
        dataclasses.replace(TERMS["mace"], heads=("two words",))
    with pytest.raises(ValueError, match="has one of them twice"):
        dataclasses.replace(TERMS["nequip"], heads=("pbe", "pbe"))
    with pytest.raises(ValueError, match="LennardJones cannot have several heads"):
        join({"one": Potential(LennardJones(cutoff=3.0), {})})
