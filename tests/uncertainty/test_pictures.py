"""Pictures of structures: what is seen from where, and what is drawn in which colour."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, fcc111, graphene, molecule
from matplotlib import colormaps
from matplotlib.colors import to_rgba

from equipot.figures import ORANGE
from equipot.structure import Structure
from equipot.uncertainty.pictures import cell_axes, draw_deviations, picture, principal_axes, view_of

SYSTEMS = {
    "molecule": molecule("C6H6"),
    "crystal": bulk("Si", cubic=True),
    "primitive": bulk("Cu"),
    "slab": fcc111("Cu", (3, 3, 3), vacuum=6),
    "atom": molecule("H"),
}


def turned(atoms, seed=0):
    atoms = atoms.copy()
    atoms.rotate(77, np.random.default_rng(seed).normal(size=3), rotate_cell=True)
    return atoms


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_view_is_a_rotation_without_a_mirror(name):
    """Distances, and which side is which."""
    structure = Structure.from_ase(turned(SYSTEMS[name]))
    view = view_of(structure)
    apart = lambda x: np.linalg.norm(x[:, None] - x[None], axis=2)
    if not structure.pbc.any():
        np.testing.assert_allclose(apart(view.atoms), apart(structure.positions), atol=1e-9)
    assert len(view.edges) == (12 if structure.pbc.any() and structure.volume else 0)
    found = [principal_axes(structure.positions)]
    found += [cell_axes(structure.cell, structure.positions)] if len(view.edges) else []
    for axes in found:
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) == pytest.approx(1)


def test_flat_things_are_seen_from_above():
    benzene = view_of(Structure.from_ase(turned(SYSTEMS["molecule"])))
    assert np.ptp(benzene.atoms[:, 2]) < 1e-6
    sheet = graphene(size=(3, 3, 1), vacuum=8.0)
    sheet.pbc = True
    view = view_of(Structure.from_ase(turned(sheet)))
    assert np.ptp(view.atoms[:, 2]) < 1e-6 and view.atoms[:, :2].std() > 1
    # A lattice vector to the right.
    assert any(abs(end[1] - start[1]) < 1e-9 and abs(end[0] - start[0]) > 1 for start, end in view.edges)


def test_atoms_that_left_the_cell_are_drawn_within():
    atoms = bulk("Si", cubic=True)
    home = view_of(Structure.from_ase(atoms))
    atoms.positions += atoms.cell[0] - 2 * atoms.cell[2]
    away = view_of(Structure.from_ase(atoms))
    np.testing.assert_allclose(away.atoms, home.atoms, atol=1e-6)
    np.testing.assert_allclose(away.edges, home.edges, atol=1e-6)


def circles(axis):
    """Colours and centres of the drawn atoms, and centre of the ring."""
    (atoms,) = (c for c in axis.collections if len(c.get_facecolor()) > 1)
    centres = np.array([path.vertices.mean(axis=0) for path in atoms.get_paths()])
    (ring,) = (patch for patch in axis.patches if not patch.get_fill())
    return atoms.get_facecolor(), centres, np.array(ring.center)


def test_atoms_have_the_colours_of_their_values_and_the_worst_is_ringed():
    structure = Structure.from_ase(molecule("CH3CH2OH"))
    values = np.linspace(0.01, 0.2, len(structure))
    values[4] = 0.25
    novelty = np.linspace(0.1, 2.0, len(structure))
    novelty[6] = np.inf
    figure = draw_deviations(structure, values, novelty, "title")
    view = view_of(structure)
    first, second, *bars = figure.axes
    assert [bar.get_ylabel() for bar in bars] == ["deviation of forces (meV/Å)", "novelty; orange: infinite"]
    assert "largest: 250 meV/Å (atom 4, H)" in first.get_title() and "largest: inf (atom 6" in second.get_title()
    colours, centres, ring = circles(first)
    which = [int(np.argmin(np.linalg.norm(view.atoms[:, :2] - centre, axis=1))) for centre in centres]
    np.testing.assert_allclose(colours, colormaps["viridis"](values[which] / 0.25), atol=1e-6)
    np.testing.assert_allclose(ring, view.atoms[4, :2])
    depth = view.atoms[which, 2]
    assert which[-1] == 4 and (np.diff(depth[:-1]) >= 0).all()
    colours, _, ring = circles(second)
    np.testing.assert_allclose(ring, view.atoms[6, :2])
    np.testing.assert_allclose(colours[-1], to_rgba(ORANGE))


def test_a_picture_is_a_file_and_wrong_values_are_refused(tmp_path):
    structure = Structure.from_ase(bulk("Si", cubic=True))
    picture(structure, tmp_path / "a.png", np.full(8, 1.5))
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert draw_deviations(structure, np.full(8, 1.5)).axes[1].get_ylabel() == "deviation of forces (eV/Å)"
    assert len(draw_deviations(structure, np.zeros(8)).axes) == 2
    assert draw_deviations(structure, novelty=np.ones(8)).axes[1].get_ylabel() == "novelty"
    with pytest.raises(ValueError, match="nothing to colour"):
        draw_deviations(structure)
    for wrong in (np.ones(3), np.full(8, np.nan)):
        with pytest.raises(ValueError, match="8 atoms need as many finite deviations"):
            draw_deviations(structure, wrong)
