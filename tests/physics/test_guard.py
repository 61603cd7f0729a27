"""Below the inner radius any two atoms repel by the wall alone; above the outer one nothing changes."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from ase.data import covalent_radii
from collective import Collective

import equipot
from equipot import config
from equipot.data.batch import pad
from equipot.data.closest import closest_distances
from equipot.extent import extent_of
from equipot.metadata import Head, Metadata
from equipot.models import fresh
from equipot.models.compress import compress
from equipot.models.heads import join
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.nn.radial import Radial, Splines
from equipot.physics.charges import PerSpecies
from equipot.physics.dispersion import D3
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.guard import (
    MARGIN,
    OUTER,
    REPULSION,
    Guarded,
    Wall,
    clamped,
    fitted,
    guard,
    guarded_part,
    lowered,
    outer_radii,
    with_wall,
)
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.sum import Sum
from equipot.physics.zbl import ZBL
from equipot.potential import Potential, evaluate
from equipot.structure import Structure
from equipot.term import Term
from equipot.training.config import TrainConfig
from equipot.units import kB
from equipot.workflows.doctor.walls import height, measured, wall

FALLING = LennardJones(cutoff=5.0, epsilon=-0.01, sigma=3.0)
"""The closer, the lower: atoms fuse."""
SMALL = {"cutoff": 5.0, "channels": 3, "l_max": 1, "layers": 2}
NETWORKS = {
    "MACE": MACE(**SMALL, elements=(1, 6, 8, 14, 29, 92), correlation=2, radial=Radial(mlp=(4,))),
    "NequIP": NequIP(**SMALL, elements=(1, 6, 8, 14, 29, 92), radial=Radial(mlp=(4,))),
}
KNOWN = tuple(range(1, 97))
"""Elements with a covalent radius."""


def made(term: Term, numbers=(), seed: int = 0) -> Potential:
    numbers = np.asarray(numbers or term.elements)
    crystal = Structure(numbers, 2 * np.eye(3)[np.arange(len(numbers)) % 3], 4.0 * np.eye(3), True)
    graph = pad([crystal], term.cutoff, dtype=np.float64)
    known = Metadata(tuple((int(z), -1.0 * z) for z in sorted(set(numbers.tolist()))))
    return fresh(term, graph, jax.random.key(seed), known).astype("float64")


def dimers(pairs, distances):
    """Two atoms at each of a pair's distances, for every pair."""
    return [
        Structure(pair, [[0, 0, 0], [0, 0, x]]) for pair, row in zip(pairs, distances, strict=True) for x in np.atleast_1d(row)
    ]


def push(model, structures, dtype=np.float64):
    """Force that pushes two atoms apart, eV/Å, and the energy, eV."""
    graph = pad(structures, model.cutoff, dtype=dtype)
    out = jax.jit(evaluate, static_argnames="want")(model, graph, ("energy", "forces"))
    return np.asarray(out.forces)[1::2, 2], np.asarray(out.interaction)


def inner_radii(model):
    return outer_radii(model) / (1 + model.term.wall.width)


def test_every_pair_of_elements_repels_below_the_inner_radius(double_precision):
    model, bare = made(Guarded(FALLING), KNOWN), made(FALLING, KNOWN)
    pairs = list(itertools.combinations_with_replacement(KNOWN, 2))
    shares = np.array([0.05, 0.4, 0.8, 0.999])
    inner = np.array([inner_radii(model)[pair] for pair in pairs])
    np.testing.assert_allclose(inner, [0.5 * (covalent_radii[a] + covalent_radii[b]) for a, b in pairs], rtol=1e-7)
    structures = dimers(pairs, inner[:, None] * shares)
    assert (push(bare, structures)[0] < 0).all()
    force, energy = (x.reshape(len(pairs), -1) for x in push(model, structures))
    assert (force > 0).all() and (np.diff(energy) < 0).all()


@pytest.mark.parametrize("numbers", [(1, 1), (1, 8), (8, 14), (29, 29), (92, 1)], ids=str)
def test_above_the_outer_radius_nothing_changes(numbers, double_precision):
    for term in (FALLING, NETWORKS["MACE"]):
        model = made(Guarded(term), numbers if term is FALLING else ())
        bare = model.member("base")
        above = dimers([numbers], [np.linspace(1.0001 * outer_radii(model)[numbers], 4.9, 10)])
        for changed, same in zip(push(model, above), push(bare, above), strict=True):
            np.testing.assert_allclose(changed, same, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_variables_of_a_network_weaken_the_wall_in_a_crowd(name, seed, double_precision):
    """The force along a pair, with all other vectors fixed, is that of the wall alone among 14 atoms in 3 Å.

    The network alone would push its atoms with forces of up to 1e8 eV/Å.
    """
    model = made(Guarded(NETWORKS[name], Wall(0.7)), seed=seed)
    rng = np.random.default_rng(seed)
    crowds = [Structure(rng.choice(model.elements, 14), rng.uniform(0, 3.0, (14, 3))) for _ in range(6)]
    graph = pad(crowds, 5.0, dtype=np.float64)
    strength = lambda: np.abs(jax.jit(evaluate, static_argnames="want")(model.member("base"), graph, ("forces",)).forces).max()
    constants = model.variables["constants"]
    scale = constants["scale"] * (1e8 / strength())
    model = model.replace(variables={**model.variables, "constants": {**constants, "scale": scale}})
    found = measured(model, inner_radii(model), crowds)
    assert len(found.force) > 100 and strength() == pytest.approx(1e8) and (found.wall > 0).all()
    np.testing.assert_allclose(found.force, found.wall, rtol=1e-6)


def test_energies_stay_finite_and_rise_towards_contact_in_single_precision():
    model = made(Guarded(NETWORKS["MACE"])).astype("float32")
    for pair in ((1, 1), (92, 92)):
        force, energy = push(model, dimers([pair], [[1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.2, 0.25]]), np.float32)
        assert np.isfinite(force).all() and (force > 0).all() and (np.diff(energy) < 0).all()


def test_no_atom_of_10_000_kelvin_passes_the_wall():
    """At half the inner radius the lowest wall of all is 20 kT, where one of 3,000 K meets more than 60."""
    heights = [height(a, b, 0.5 * (covalent_radii[a] + covalent_radii[b]), 0.15) for a in KNOWN for b in KNOWN if a <= b]
    assert min(heights) > 20 * kB * 10_000


def test_the_clamp_has_three_continuous_derivatives(double_precision):
    one = lambda r: clamped(r, jnp.float64(1.0), jnp.float64(1.2))
    for order in range(4):
        for edge in (1.0, 1.2):
            assert float(one(jnp.float64(edge - 1e-9))) == pytest.approx(float(one(jnp.float64(edge + 1e-9))), abs=1e-4), order
        one = jax.grad(one)


def test_energies_have_two_continuous_derivatives_at_both_radii(double_precision):
    model = made(Guarded(NETWORKS["MACE"]))
    for at in (inner_radii(model)[6, 8], outer_radii(model)[6, 8]):
        step = 1e-5
        force, energy = push(model, dimers([(6, 8)], [at + step * np.array([-2, -1, 1, 2])]))
        curvature = np.diff(force) / np.array([step, 2 * step, step])
        assert abs(energy[2] - energy[1] + step * (force[1] + force[2])) < 1e-8
        assert abs(curvature[2] - curvature[0]) < 1e-2 * np.abs(curvature).max()


def test_closest_distances_of_data_lower_the_inner_radii(double_precision):
    close = Structure([1, 8, 8], [[0, 0, 0], [0, 0, 0.5], [0, 0, 2.5]])
    periodic = Structure([8], [[0, 0, 0]], 1.1 * np.eye(3), True)
    unused = Structure([1, 1], [[0, 0, 0], [0, 0, 0.2]], weight=0.0)
    table = closest_distances([close, periodic, unused], 2.4)
    assert table[1, 8] == table[8, 1] == 0.5 and table[8, 8] == pytest.approx(1.1) and np.isinf(table[1, 1])
    bare = guard(made(FALLING, (1, 8)), Wall(0.7, 0.2, 0.9))
    model = lowered(bare, table)
    outer = outer_radii(model)
    assert outer[1, 8] == pytest.approx(MARGIN * 0.5) and outer[8, 8] == pytest.approx(MARGIN * 1.1)
    assert outer[1, 1] == pytest.approx(1.2 * 0.7 * 0.62)
    nearer = table.copy()
    nearer[1, 1] = 2.0
    trained = outer_radii(fitted(bare, nearer))
    assert trained[1, 8] == outer[1, 8] and trained[8, 8] == outer[8, 8]
    assert trained[1, 1] == pytest.approx(1.2 * 0.9 * 0.62) and trained[6, 6] == pytest.approx(1.2 * 0.7 * 1.52)
    at = dimers([(1, 8)], [0.5])
    for changed, same in zip(push(model, at), push(made(FALLING, (1, 8)), at), strict=True):
        np.testing.assert_allclose(changed, same, rtol=1e-13)


def test_the_wall_ends_at_a_short_cutoff(double_precision):
    model = made(Guarded(LennardJones(cutoff=2.0, epsilon=-0.5, sigma=1.0)), (55,))
    assert outer_radii(model)[55, 55] == 2.0
    force, energy = push(model, dimers([(55, 55)], [[1.999, 2.5]]))
    assert abs(energy).max() < 1e-4 and abs(force).max() < 1e-2


def test_variables_keep_their_names_and_files_their_radii(double_precision, tmp_path):
    term = NETWORKS["MACE"]
    model, bare = made(Guarded(term)), made(term)
    assert jax.tree.structure(model.params) == jax.tree.structure(bare.params)
    assert set(model.variables["constants"]) - set(bare.variables["constants"]) == {OUTER}
    table = np.full((119, 119), np.inf)
    table[6, 8] = table[8, 6] = 0.7
    equipot.save(lowered(guard(bare, Wall(0.6, 0.3)), table), tmp_path / "guarded.eqp")
    again = equipot.load(tmp_path / "guarded.eqp")
    assert again.term == Guarded(term, Wall(0.6, 0.3)) and outer_radii(again)[6, 8] == pytest.approx(0.7 * MARGIN)
    assert jax.tree.all(jax.tree.map(np.array_equal, again.member("base").variables, bare.variables))
    assert again.member("base").term == term


def test_one_head_of_a_guarded_potential(double_precision):
    term = NETWORKS["MACE"]
    low, high = made(Guarded(term)), made(Guarded(term))
    heads = {**high.params, "readout1": jax.tree.map(lambda x: 2 * x, high.params["readout1"])}
    high = high.replace(variables={**high.variables, "params": heads})
    both = join({"low": low, "high": high})
    assert both.heads == ("low", "high") and both.term.base.heads == ("low", "high")
    for name, alone in (("low", low), ("high", high)):
        found = both.head(name)
        assert found.heads == () and found.term == alone.term
        scan = dimers([(6, 8)], [[0.4, 0.8, 1.3]])
        np.testing.assert_allclose(push(found, scan)[1], push(alone, scan)[1], rtol=1e-12)
    assert isinstance(both.metadata.heads[0], Head)


def test_a_guarded_potential_is_compressed_as_its_base_is(double_precision):
    model = lowered(guard(made(NETWORKS["MACE"]), Wall(0.6)), np.full((119, 119), 0.7))
    fast = compress(model, 16).potential
    assert fast.term.base.radial.table == Splines(16) and fast.term.wall == Wall(0.6)
    np.testing.assert_array_equal(outer_radii(fast), outer_radii(model))
    alone = compress(model.member("base"), 16).potential
    far, near = dimers([(6, 8)], [[1.1, 1.7]]), dimers([(6, 8)], [np.linspace(0.2, 0.99, 9) * inner_radii(fast)[6, 8]])
    np.testing.assert_array_equal(push(fast, far)[1], push(alone, far)[1])
    assert (push(fast, near)[0] > 0).all()


def test_every_wall_of_a_sum_takes_its_radii_from_the_data(double_precision):
    """But for frozen terms, which keep theirs."""
    term = Sum((Guarded(FALLING), Guarded(LennardJones(cutoff=4.0)), ZBL(cutoff=2.0)), frozen=(1,))
    constants = fitted(made(term, (1, 8)), np.full((119, 119), 0.4)).variables["constants"]
    assert constants["terms_0"][OUTER].max() == pytest.approx(0.4 * MARGIN)
    assert constants["frozen_1"]["constants"][OUTER].max() > 1


def test_a_config_gives_any_model_a_wall():
    data = {"train": "bundled:ethanol/train"}
    build = lambda **more: config.build(TrainConfig, {"data": data, **more})
    mace = {"kind": "MACE", "cutoff": 4.0}
    assert build(model=mace, guard=True).model == Guarded(MACE(cutoff=4.0))
    assert build(model=mace, guard={"share": 0.7}).model.wall == Wall(0.7)
    assert build(model=mace, guard=False) == build(model=mace) and build(model=mace).guard is None
    whole = build(model=[mace, {"kind": "ZBL"}], guard=True)
    assert whole.model == Guarded(Sum((MACE(cutoff=4.0), ZBL())))
    assert config.build(TrainConfig, config.dump(whole)) == whole
    own = build(model={"kind": "Guarded", "base": mace, "wall": {"width": 0.3}}, guard=True)
    assert own.model == Guarded(MACE(cutoff=4.0), Wall(width=0.3))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Wall(share=0.0), "share 0.0"),
        (lambda: Wall(share=1.5), "at most 1"),
        (lambda: Wall(width=0.0), "width 0.0"),
        (lambda: Guarded(Guarded(FALLING)), "has a wall already"),
        (lambda: Guarded(Sum((FALLING, Guarded(FALLING)))), "has a wall already"),
        (lambda: Guarded(Sum((FALLING, Collective(cutoff=3.0)))), "depends on positions.*the other terms of a list"),
        (lambda: Guarded(FALLING, cutoff=4.0), "cutoff 4.0 Å is not that of base, 5.0 Å"),
        (lambda: Guarded(FALLING).with_heads(("a", "b")), "Guarded cannot have several heads"),
    ],
)
def test_what_is_no_wall_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_the_repulsion_has_no_attractive_part():
    assert min(REPULSION.coefficients) > 0 and min(REPULSION.decays) > 0


@pytest.mark.parametrize("factor", [1.0, 300.0])
def test_a_wall_goes_around_the_network_below_charges(factor, double_precision):
    """Charges and dipoles stay; charges that would pull atoms together through the wall are found."""
    water = Structure.from_ase(molecule("H2O"))
    charged = Electrostatics(base=MACE(**SMALL, elements=(1, 8), correlation=2, radial=Radial(mlp=(4,))))
    graph = jax.device_put(pad([water], 5.0, dtype=np.float64, extent=extent_of([water], charged.longest_wave)))
    bare = fresh(charged, graph, jax.random.key(0), Metadata(((1, -1.0), (8, -8.0)))).astype("float64")
    charges = jax.tree.map(lambda x: factor * x, bare.params["charges"])
    bare = bare.replace(variables={**bare.variables, "params": {**bare.params, "charges": charges}})
    model = guard(bare, Wall(0.6))
    assert model.term == charged.clone(base=Guarded(charged.base, Wall(0.6))) and model.provides == bare.provides
    part = guarded_part(model)
    assert part.term == model.term.base and part.variables["params"] == model.params["base"]
    assert outer_radii(model)[1, 8] == pytest.approx(1.15 * 0.6 * 0.97) == outer_radii(part)[1, 8]
    assert outer_radii(lowered(model, np.full((119, 119), 0.3))).max() == pytest.approx(0.3 * MARGIN)
    run = jax.jit(evaluate, static_argnames="want")
    same, other = (run(p, graph, ("forces", "charges", "dipole")) for p in (bare, model))
    assert jax.tree.all(jax.tree.map(np.array_equal, same, other)) and np.abs(same.charges).max() > 1e-3
    attracting, beside, _ = wall(model, 0).measures
    assert beside.verdict == "sound" and attracting.verdict == ("sound" if factor == 1 else "broken")


def test_a_config_puts_the_wall_below_charges():
    whole = config.build(
        TrainConfig,
        {
            "data": {"train": "x.xyz"},
            "model": {"kind": "Electrostatics", "base": {"kind": "MACE", "cutoff": 4.0}},
            "guard": True,
        },
    )
    assert whole.model == Electrostatics(base=Guarded(MACE(cutoff=4.0)))
    with pytest.raises(ValueError, match="Electrostatics cannot be guarded.*holds no networks"):
        TrainConfig(whole.data, Electrostatics(cutoff=4.0), guard=True)


def test_a_list_with_charges_is_guarded_around_its_one_network():
    network = MACE(cutoff=4.0, elements=(1, 8), channels=2, l_max=1, correlation=1, radial=Radial(mlp=(4,)))
    charges = Electrostatics(base=network, charges=PerSpecies((0.4, -0.8)))
    d3 = D3(functional="pbe", cutoff=6.0, elements=(1, 8))
    wall = Wall()
    assert with_wall(Sum((charges, d3)), wall) == Sum((charges.clone(base=Guarded(base=network, wall=wall)), d3))
    with pytest.raises(ValueError, match="holds 2 networks"):
        with_wall(Sum((charges, network)), wall)
    with pytest.raises(ValueError, match="wall already"):
        with_wall(with_wall(Sum((charges, d3)), wall), wall)
