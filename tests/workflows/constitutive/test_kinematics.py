"""Kinematics, classical laws and data files against closed forms and derivatives by differences; no network here."""

import numpy as np
import pytest
from ase.build import bulk

from equipot.structure import Structure
from equipot.workflows.constitutive.baselines import NeoHooke, SaintVenantKirchhoff, averaged, invariant_tensors, voigt
from equipot.workflows.constitutive.deformations import Deformations, read_deformations
from equipot.workflows.constitutive.kinematics import (
    StrainRange,
    cauchy_of_piola,
    lowest_acoustic,
    piola_of_cauchy,
    random_rotations,
    range_of,
    unit_vectors,
)
from equipot.workflows.constitutive.labelling import elastic_tensor_of, small_strains
from equipot.workflows.constitutive.sampling import PATHS, path, random_gradients
from equipot.workflows.constitutive.symmetry import orthogonal, point_rotations

BOUNDS = StrainRange(0.1, 0.12)
FCC = Structure.from_ase(bulk("Cu", "fcc", a=3.6))
HCP = Structure.from_ase(bulk("Mg", "hcp", a=3.2, c=5.2))
TRICLINIC = Structure(
    np.array([6, 8]),
    np.array([[0, 0, 0], [1.0, 0.9, 0.4]]),
    np.array([[4, 0, 0], [1, 5, 0], [0.5, 1.5, 6.0]]),
    np.ones(3, bool),
)


def isotropic(mu, lame):
    d = np.eye(3)
    both = np.einsum("ik,jl->ijkl", d, d) + np.einsum("il,jk->ijkl", d, d)
    return lame * np.einsum("ij,kl->ijkl", d, d) + mu * both


def differences(function, gradients, step=1e-6):
    """Derivatives of energies by F."""
    found = np.empty_like(gradients)
    for i in range(3):
        for j in range(3):
            e = np.zeros((3, 3))
            e[i, j] = step
            found[:, i, j] = (function(gradients + e) - function(gradients - e)) / (2 * step)
    return found


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (1.0, 1.0), (1.0, 1.5)])
def test_random_deformations_have_the_distance_that_is_asked_for(low, high):
    f = random_gradients(BOUNDS, 200, 1, low, high)
    distance = BOUNDS.distance(random_rotations(200, 2) @ f)
    assert distance.min() > low - 1e-9 and distance.max() < high + 1e-9
    assert np.ptp(distance) > 0.9 * (high - low)
    np.testing.assert_allclose(f, np.swapaxes(f, 1, 2), atol=1e-14)


@pytest.mark.parametrize("name", PATHS)
def test_paths_end_at_the_reach(name):
    strain, f = path(name, BOUNDS, 1.4, 15)
    assert BOUNDS.distance(f).max() == pytest.approx(1.4) and len(strain) == 15
    assert np.abs(f[np.argmin(np.abs(strain))] - np.eye(3)).max() < 1e-12


def test_the_range_of_deformations_holds_them_and_deformations_of_one_kind_are_refused():
    f = random_gradients(BOUNDS, 50, 3)
    assert range_of(f).distance(f).max() == pytest.approx(1)
    with pytest.raises(ValueError, match="change of volume"):
        range_of(path("shear 100/010", BOUNDS, 1.0, 5)[1])
    with pytest.raises(ValueError, match="determinant"):
        BOUNDS.distance(np.diag([1.0, 1.0, -1.0])[None])


def test_stresses_are_converted_both_ways_and_a_pressure_is_one():
    f = random_gradients(BOUNDS, 10, 4)
    # Under a pressure p the energy changes by -p dJ: P = -p J F^-T.
    by_volume = differences(np.linalg.det, f)
    np.testing.assert_allclose(piola_of_cauchy(np.broadcast_to(-2.0 * np.eye(3), f.shape), f), -2.0 * by_volume, atol=1e-8)
    stress = np.random.default_rng(0).normal(size=f.shape)
    np.testing.assert_allclose(cauchy_of_piola(piola_of_cauchy(stress, f), f), stress, atol=1e-12)


@pytest.mark.parametrize("law", [NeoHooke(3.0, 5.0), SaintVenantKirchhoff(isotropic(3.0, 5.0))], ids=["neo-Hooke", "linear"])
def test_classical_laws_are_derivatives_of_their_energies_and_agree_with_linear_elasticity(law):
    f = random_rotations(20, 5) @ random_gradients(BOUNDS, 20, 6)
    np.testing.assert_allclose(law.stresses(f), differences(law.energies, f), atol=1e-7)
    small = Deformations(small_strains(1e-4), law.stresses(small_strains(1e-4)))
    tensor = elastic_tensor_of(small, 1e-4, np.eye(3)[None])
    np.testing.assert_allclose(tensor, isotropic(3.0, 5.0), atol=1e-6)
    assert voigt(tensor)[0, 0] == pytest.approx(11) and voigt(tensor)[3, 3] == pytest.approx(3)


def test_classical_laws_are_found_again_from_their_own_stresses():
    f = random_gradients(BOUNDS, 20, 7)
    hooke = NeoHooke(3.0, 5.0)
    found = NeoHooke.fitted(Deformations(f, hooke.stresses(f)))
    assert (found.mu, found.lame) == pytest.approx((3.0, 5.0))
    rotations = point_rotations(FCC)
    tensor = averaged(np.random.default_rng(0).normal(size=(3, 3, 3, 3)), rotations)
    linear = SaintVenantKirchhoff(tensor)
    fitted = SaintVenantKirchhoff.fitted(Deformations(f, linear.stresses(f)), rotations)
    np.testing.assert_allclose(fitted.tensor, tensor, atol=1e-10)


def test_the_acoustic_tensor_of_an_isotropic_body_has_its_wave_moduli():
    n = unit_vectors(20)
    np.testing.assert_allclose(np.linalg.norm(n, axis=1), 1)
    assert lowest_acoustic(isotropic(3.0, 5.0)[None], n) == pytest.approx([3.0])
    # Longitudinal waves are the slower ones where lambda + mu is negative.
    assert lowest_acoustic(isotropic(3.0, -7.0)[None], n) == pytest.approx([-1.0])


@pytest.mark.parametrize(
    "crystal, order, constants", [(FCC, 24, 3), (HCP, 12, 5), (TRICLINIC, 1, 21)], ids=["fcc", "hcp", "triclinic"]
)
def test_rotations_of_a_crystal_are_a_group_with_its_number_of_elastic_constants(crystal, order, constants):
    rotations = point_rotations(crystal)
    assert len(rotations) == order and len(invariant_tensors(rotations)) == constants
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    products = (rotations[:, None] @ rotations[None]).reshape(-1, 1, 3, 3)
    assert np.abs(products - rotations[None]).max(axis=(2, 3)).min(axis=1).max() < 1e-12


def test_a_group_of_a_slightly_distorted_cell_becomes_orthogonal_and_stays_a_group():
    distortion = np.eye(3) + 1e-3 * np.random.default_rng(1).normal(size=(3, 3))
    skewed = distortion @ point_rotations(FCC) @ np.linalg.inv(distortion)
    group = orthogonal(skewed)
    np.testing.assert_allclose(group @ np.swapaxes(group, 1, 2), np.broadcast_to(np.eye(3), group.shape), atol=1e-13)
    products = (group[:, None] @ group[None]).reshape(-1, 1, 3, 3)
    assert np.abs(products - group[None]).max(axis=(2, 3)).min(axis=1).max() < 1e-12


def test_data_files_state_their_units(tmp_path):
    f = random_rotations(6, 8) @ random_gradients(BOUNDS, 6, 8)
    hooke = NeoHooke(3.0, 5.0)
    data = Deformations(f, hooke.stresses(f), hooke.energies(f))
    data.write(tmp_path / "own.npz")
    cauchy = cauchy_of_piola(data.stresses, f)
    np.savez(tmp_path / "cauchy.npz", F=f, sigma_MPa=1e3 * cauchy)
    names = [f"{kind}{i}{j}{unit}" for kind, unit in (("F", ""), ("sigma", "_kbar")) for i in (1, 2, 3) for j in (1, 2, 3)]
    table = np.concatenate([f.reshape(6, 9), 10 * cauchy.reshape(6, 9)], axis=1)
    np.savetxt(tmp_path / "table.csv", table, fmt="%.17g", delimiter=",", header=",".join(names), comments="")
    for name in ("own.npz", "cauchy.npz", "table.csv"):
        found = read_deformations(tmp_path / name)
        np.testing.assert_allclose(found.stresses, data.stresses, atol=1e-12)
        np.testing.assert_allclose(found.gradients, f, atol=1e-15)
    np.testing.assert_array_equal(read_deformations(tmp_path / "own.npz").energies, data.energies)
    np.savez(tmp_path / "bare.npz", F=f, P=data.stresses)
    with pytest.raises(ValueError, match="unit in its name"):
        read_deformations(tmp_path / "bare.npz")
    with pytest.raises(ValueError, match="not finite"):
        Deformations(f, np.full_like(f, np.nan))
