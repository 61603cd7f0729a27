"""Paths and saddle points on landscapes whose stationary points are known, and of atoms beside ASE's."""

import dataclasses
import json

import ase.mep
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.optimize import FIRE
from pair_crystals import make_argon

from equipot import evaluate, hessian_of
from equipot.structure import Structure
from equipot.workflows.journal import packed, unpacked
from equipot.workflows.neb import (
    AtomsSurface,
    BandConfig,
    FunctionSurface,
    NEBConfig,
    SaddleConfig,
    descend,
    find_saddle,
    frequencies,
    reaction,
    relax_band,
    saddle,
    vineyard,
)
from equipot.workflows.neb.band import KEPT, BandState, path_tangents
from equipot.workflows.relax import RelaxConfig

pytestmark = pytest.mark.usefixtures("double_precision")
FIRST, SECOND, THIRD = (-0.558224, 1.441726), (-0.050011, 0.466694), (0.623499, 0.028038)
"""Minima of the surface of K. Müller and L. D. Brown, Theor. Chim. Acta 53, 75 (1979)."""
SADDLE, SADDLE_ENERGY = (-0.822002, 0.624313), -40.664844


def mueller_brown(x):
    a = jnp.array([-200.0, -100.0, -170.0, 15.0])
    p, q, r = jnp.array([-1.0, -1.0, -6.5, 0.7]), jnp.array([0.0, 0.0, 11.0, 0.6]), jnp.array([-10.0, -10.0, -6.5, 0.7])
    u, v = x[0] - jnp.array([1.0, 0.0, -0.5, -1.0]), x[1] - jnp.array([0.0, 0.5, 1.5, 1.0])
    return jnp.sum(a * jnp.exp(p * u**2 + q * u * v + r * v**2))


def straight(first, last, images):
    return np.linspace(0, 1, images)[:, None] * (np.array(last) - np.array(first)) + np.array(first)


def test_the_surface_of_mueller_and_brown():
    surface = FunctionSurface(mueller_brown)
    settings = BandConfig(fmax=0.5, spring=50, climb_below=50, max_step=0.1, max_steps=400)
    states = []
    band = relax_band(surface, straight(FIRST, SECOND, 9), settings, keep=lambda state: states.append(packed(state)))
    assert len(states) == band.evaluations // KEPT + 1
    for state in states:
        again = relax_band(surface, band.points, settings, state=unpacked(BandState, json.loads(json.dumps(state))))
        np.testing.assert_array_equal(again.points, band.points)
        assert again.evaluations == band.evaluations
    assert band.converged and band.climbing == band.highest
    assert band.energies.max() == pytest.approx(SADDLE_ENERGY, abs=0.05)
    np.testing.assert_allclose(band.points[band.highest], SADDLE, atol=0.01)
    saddle = find_saddle(surface, band.points[band.highest] + 0.04, SaddleConfig(fmax=1e-6, radius=0.1))
    assert saddle.converged and saddle.curvature < 0, saddle.reason
    np.testing.assert_allclose(saddle.point, SADDLE, atol=1e-5)
    assert saddle.energy == pytest.approx(SADDLE_ENERGY, abs=1e-5) and saddle.gradients < 30
    back, ahead = descend(surface, saddle.point, saddle.mode, np.ones(2), longest=5, fmax=1.0, first=0.02)
    ends = sorted([tuple(back.points[-1]), tuple(ahead.points[-1])])
    np.testing.assert_allclose(ends, sorted([FIRST, SECOND]), atol=0.06)
    for way in (back, ahead):
        assert way.reached and (np.diff(way.energies) < 0).all()


@pytest.mark.parametrize("images", [11, 23, 35])
def test_images_that_are_close_do_not_overtake_each_other(images):
    settings = BandConfig(fmax=0.5, spring=50, climb_below=50, max_step=0.1)
    band = relax_band(FunctionSurface(mueller_brown), straight(FIRST, SECOND, images), settings)
    assert band.converged and band.energies.max() == pytest.approx(SADDLE_ENERGY, abs=0.05)
    spacing = np.linalg.norm(np.diff(band.points, axis=0), axis=1)
    assert spacing.max() < 3 * spacing.min()


def test_functions_are_called_in_double_precision():
    with jax.enable_x64(False):
        surface = FunctionSurface(mueller_brown)
        saddle = find_saddle(surface, np.array(SADDLE) + 0.03, SaddleConfig(fmax=1e-9, radius=0.1))
    assert saddle.converged and saddle.energy == pytest.approx(SADDLE_ENERGY, abs=1e-6)


def test_a_cost_map_of_a_rover():
    """Hills on a grid, interpolated; the rover goes round them."""
    hills = np.array([[2.0, 2.1], [3.4, 3.2], [1.0, 3.5]])

    def cost(x):
        return jnp.sum(3 * jnp.exp(-jnp.sum((x[None] - hills) ** 2, axis=1) / 0.5)) + 0.02 * jnp.sum(x**2)

    surface = FunctionSurface(cost)
    start = straight((0.0, 0.0), (5.0, 5.0), 17)
    band = relax_band(surface, start, BandConfig(fmax=0.02, climb=False, max_steps=800))
    before, _ = surface.evaluate(start)
    assert band.converged and band.energies.max() < 0.6 * before.max()
    np.testing.assert_allclose(band.points[[0, -1]], [(0, 0), (5, 5)])
    spacing = np.linalg.norm(np.diff(band.points, axis=0), axis=1)
    assert spacing.max() < 1.5 * spacing.min()


def test_tangents_point_uphill():
    points = np.array([[0.0, 0], [1, 0], [2, 1], [3, 1], [4, 0]])
    energies = np.array([0.0, 1.0, 3.0, 2.0, 0.0])
    tangents = path_tangents(points, energies)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(tangents[0], [half, half])
    np.testing.assert_allclose(tangents[2], [1, 0])
    # At the top, the neighbours weigh as much as the energies differ from theirs.
    np.testing.assert_allclose(tangents[1], np.array([3, 1]) / np.sqrt(10))
    flat = path_tangents(points, np.zeros(5))
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 1)


def adatom():
    """An atom on a slab, in both of its hollows; all but it is fixed."""
    slab = fcc111("Ar", (2, 2, 2), a=3.42, vacuum=6.0)
    ends = []
    for site in ("fcc", "hcp"):
        atoms = slab.copy()
        add_adsorbate(atoms, "Ar", 1.9, site)
        atoms.set_constraint(FixAtoms(range(len(slab))))
        ends.append(atoms)
    return ends


def test_an_adatom_hops_as_in_ase():
    ends = adatom()
    settings = NEBConfig(images=5, ends=RelaxConfig(fmax=1e-4), band=BandConfig(fmax=0.002), reaction_coordinate=True)
    found = reaction(make_argon(), ends, settings)
    assert not found.failures, found.failures
    images = [ends[0].copy() for _ in range(5)]
    images[0].positions, images[-1].positions = found.images[0].positions, found.images[-1].positions
    for image in images:
        image.calc = make_argon().calculator()
    band = ase.mep.NEB(images, climb=True, method="improvedtangent", k=1.0)
    band.interpolate("idpp")
    FIRE(band, logfile=None).run(fmax=0.002, steps=500)
    energies = [image.get_potential_energy() for image in images]
    assert found.barrier == pytest.approx(max(energies) - energies[0], abs=2e-4)
    assert found.barrier_back == pytest.approx(max(energies) - energies[-1], abs=2e-4)
    assert found.images[0].energy == pytest.approx(energies[0], abs=1e-6)
    assert found.saddle.converged and found.saddle.curvature < 0
    # The one atom that moves has three frequencies, and the same Hessian as by itself.
    block = hessian_of(make_argon(), found.saddle_structure)[-1, :, -1]
    assert np.linalg.eigvalsh(block)[0] == pytest.approx(found.saddle.curvature, rel=1e-3)
    at_minimum, at_saddle = (
        np.linalg.eigvalsh(hessian_of(make_argon(), s)[-1, :, -1]) for s in (found.images[0], found.saddle_structure)
    )
    factor = 15.633304 / np.sqrt(ends[0].get_masses()[0])
    expected = factor * np.prod(np.sqrt(at_minimum)) / np.prod(np.sqrt(at_saddle[1:]))
    assert found.rate.prefactor_THz == pytest.approx(expected, rel=1e-3)
    assert found.rate.at(300) == pytest.approx(expected * 1e12 * np.exp(-found.barrier / (8.617333e-5 * 300)), rel=1e-3)
    far = lambda way, k: np.linalg.norm(way.points[-1] - found.images[k].positions.ravel())
    assert [min((0, -1), key=lambda k: far(way, k)) for way in found.ways] == [0, -1]
    assert max(min(far(way, 0), far(way, -1)) for way in found.ways) < 0.15
    lengths, energies = found.reaction_coordinate()
    assert (np.diff(lengths) > 0).all() and lengths[energies.argmax()] == 0
    assert energies.max() == pytest.approx(found.barrier, abs=1e-6)
    heights = [0, band_difference := found.barrier - found.barrier_back]
    np.testing.assert_allclose(energies[[0, -1]], heights, atol=0.1 * found.barrier_back)
    turned = reaction(make_argon(), ends[::-1], settings)
    np.testing.assert_allclose(turned.reaction_coordinate()[1][[0, -1]], np.array(heights)[::-1] - band_difference, atol=0.02)
    with pytest.raises(ValueError, match="was not followed"):
        dataclasses.replace(found, ways=None).reaction_coordinate()


@pytest.mark.parametrize("more", [0, 14], ids=["whole Hessian", "Lanczos"])
def test_a_saddle_point_of_second_order_is_refused(more):
    """Between four wells at the corners of a square, the middle is a maximum along two directions, the middle of a side along
    one; further coordinates are stiff, soft and, three of them, free."""
    stiffness = jnp.array([20.0, 5.0, 1.0, 0.1, 0.0, 0.0, 0.0, *[2.0] * 7][:more])

    def wells(x):
        return jnp.sum((x[:2] ** 2 - 1) ** 2 * jnp.array([1.0, 0.6])) + 0.5 * jnp.sum(stiffness * x[2:] ** 2)

    surface = FunctionSurface(wells)
    start = lambda x, y: np.concatenate([[x, y], np.full(more, 0.02) * (np.asarray(stiffness) > 0)])
    at, along = np.zeros(2 + more), np.eye(2 + more)[0]
    second, _ = saddle.second_curvature(lambda v: surface.product(at, v), along)
    assert second == pytest.approx(-2.4, abs=1e-3) and "saddle point of higher order" in saddle.no_saddle(-4.0, second)
    if not more:
        top = find_saddle(surface, start(0.05, 0.0), SaddleConfig(fmax=1e-6))
        assert not top.converged and top.reason == saddle.no_saddle(top.curvature, top.second)
        assert (top.curvature, top.second) == pytest.approx((-4.0, -2.4), abs=1e-3)
        held = find_saddle(surface, start(0.05, 0.0), SaddleConfig(fmax=1e-6), free=np.array([True, False]))
        assert held.converged and held.second == np.inf and held.mode[1] == 0
    side = find_saddle(surface, start(0.05, 1.02), SaddleConfig(fmax=1e-6))
    assert side.converged and side.curvature == pytest.approx(-4.0, abs=1e-3)
    # The lowest of the others: 8 * 0.6 of the well, or the free coordinates.
    assert side.second == pytest.approx(0.0 if more else 4.8, abs=1e-3)


def test_what_cannot_be_checked_is_said(monkeypatch):
    monkeypatch.setattr(saddle, "RESTARTS", 1)
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(300, 300)))
    matrix = turn @ np.diag([-1.0, *np.linspace(0, 0.01, 199), *np.linspace(1, 100, 100)]) @ turn.T
    second, products = saddle.second_curvature(lambda v: matrix @ v, turn[:, 0])
    assert np.isnan(second) and 0 < products < 50
    monkeypatch.undo()
    assert saddle.no_saddle(-1.0, second) == ""


def test_batches_of_points_are_single_ones():
    structure = Structure.from_ase(adatom()[0])
    surface = AtomsSurface(make_argon(), structure)
    points = structure.positions.reshape(-1) + np.random.default_rng(0).normal(0, 0.3, (3, 3 * len(structure)))
    energies, gradients = surface.evaluate(points)
    for point, energy, gradient in zip(points, energies, gradients, strict=True):
        out = evaluate(make_argon(), surface.at(point))
        assert float(out.energy[0]) == pytest.approx(energy - 3.0 * len(structure), abs=1e-9)
        np.testing.assert_allclose(np.where(surface.free, -np.asarray(out.forces).reshape(-1), 0), gradient, atol=1e-10)
    v = np.random.default_rng(1).normal(size=points.shape[1])
    difference = [surface.evaluate(points[:1] + s * 1e-4 * np.where(surface.free, v, 0))[1][0] for s in (1, -1)]
    np.testing.assert_allclose(surface.product(points[0], v), (difference[0] - difference[1]) / 2e-4, atol=1e-5)


def test_what_is_no_path_is_told():
    first, last = (Structure.from_ase(a) for a in adatom())
    with pytest.raises(ValueError, match="two ends"):
        reaction(make_argon(), [first])
    with pytest.raises(ValueError, match="other atoms"):
        reaction(make_argon(), [first, last.replace(numbers=last.numbers + 1)])
    shifted = last.positions + np.where(np.asarray(last.fixed), [0.1, 0, 0], 0)
    with pytest.raises(ValueError, match="fixed atoms at other places"):
        reaction(make_argon(), [first, last.replace(positions=shifted)])
    with pytest.raises(ValueError, match="another cell"):
        reaction(make_argon(), [first, last.replace(cell=last.cell * 1.1)])
    short = NEBConfig(images=5, ends=None, band=BandConfig(max_steps=2), saddle=None, rate=False)
    found = reaction(make_argon(), [first, last], short)
    assert any("2 evaluations were not enough" in what for what in found.failures)


def test_rates_need_a_minimum_and_a_saddle_point():
    rate = vineyard(np.array([2.0, 3.0, 4.0]), np.array([-1.0, 2.0, 3.0]), 0.5, (0, 0))
    assert rate.prefactor_THz == pytest.approx(4.0) and rate.imaginary_THz == 1.0
    with pytest.raises(ValueError, match="2 imaginary"):
        vineyard(np.array([2.0, 3.0, 4.0]), np.array([-1.0, -2.0, 3.0]), 0.5, (0, 0))
    with pytest.raises(ValueError, match="should be those of rigid motions"):
        vineyard(np.array([0.01, 3.0, 4.0]), np.array([-1.0, 2.0, 3.0]), 0.5, (0, 0))
    with pytest.raises(ValueError, match="no minimum"):
        vineyard(np.array([-2.0, 3.0, 4.0]), np.array([-1.0, 2.0, 3.0]), 0.5, (0, 0))
    spring = FunctionSurface(lambda x: 0.5 * jnp.sum(jnp.array([1.0, 4.0]) * x**2))
    np.testing.assert_allclose(frequencies(spring, np.zeros(2), np.ones(2)), [15.633304, 31.266608], rtol=1e-6)
