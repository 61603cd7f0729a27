"""Small labelled systems whose labels are right: a Morse solid and a Morse molecule with analytic forces and virial."""

import numpy as np
import pytest

from equipot.neighbors import neighbor_list
from equipot.structure import Structure

DEPTH, WIDTH, BOND = 0.4, 1.4, 2.5


def morse(numbers, positions, cell, pbc, source="", **info):
    """A structure with the energy, forces and stress of Morse pairs, made smooth at 6 Å by (1 - r/6)^2."""
    positions, cell, pbc = np.asarray(positions, float), np.asarray(cell, float), np.broadcast_to(pbc, 3)
    edges = neighbor_list(positions, cell, pbc, 6.0)
    vectors = positions[edges.neighbors] + edges.shifts @ cell - positions[edges.centers]
    r = np.linalg.norm(vectors, axis=1)
    x = np.exp(-WIDTH * (r - BOND))
    v, dv = DEPTH * (x * x - 2 * x), DEPTH * WIDTH * (2 * x - 2 * x * x)
    w, dw = (1 - r / 6) ** 2, -2 * (1 - r / 6) / 6
    slope = (v * dw + dv * w)[:, None] * vectors / r[:, None]
    forces = np.zeros_like(positions)
    np.add.at(forces, edges.centers, slope)
    virial = np.einsum("ei,ej->ij", slope, vectors) / 2
    volume = abs(np.linalg.det(cell))
    stress = virial / volume if pbc.all() else None
    labels = {"energy": float((v * w).sum() / 2), "forces": forces, "stress": stress}
    return Structure(numbers, positions, cell, pbc, labels, info=info, source=source)


@pytest.fixture(scope="session")
def crystals():
    """Twelve strained and rattled fcc cells."""
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    grid = np.array([[i, j, 0] for i in range(2) for j in range(2)])
    fractional = ((corners[None] + grid[:, None]) / [2, 2, 1]).reshape(-1, 3)
    frames = []
    for k in range(12):
        strain = rng.normal(scale=0.03, size=(3, 3))
        cell = np.diag([7.2, 7.2, 3.6]) @ (np.eye(3) + (strain + strain.T) / 2)
        positions = fractional @ cell + rng.normal(scale=0.1, size=fractional.shape)
        frames.append(morse([29] * 16, positions, cell, True, f"cu.xyz, frame {k}", config_type="rattled"))
    return frames


@pytest.fixture(scope="session")
def molecules():
    """Ten open clusters of six atoms of two elements."""
    rng = np.random.default_rng(1)
    corners = 2.4 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) / np.sqrt(2)
    return [
        morse([14, 14, 14, 8, 8, 8], corners + rng.normal(scale=0.1, size=(6, 3)), np.zeros((3, 3)), False, f"m.xyz, frame {k}")
        for k in range(10)
    ]


@pytest.fixture
def write(tmp_path):
    """Writes structures as extended XYZ with label names of one's choice; a virial is -stress * volume."""

    def put(structures, name="data.xyz", energy="energy", forces="forces", stress="stress", virial=None, **extra):
        lines = []
        for s in structures:
            columns = "species:S:1:pos:R:3" + (f":{forces}:R:3" if s.forces is not None else "")
            flat = lambda matrix: " ".join(f"{x:.10f}" for x in np.ravel(matrix))
            header = [f'Lattice="{flat(s.cell)}"'] if s.pbc.any() else []
            header += [f"Properties={columns}", 'pbc="' + " ".join("FT"[int(p)] for p in s.pbc) + '"']
            header += [f"{energy}={s.energy:.10f}"] if s.energy is not None else []
            if s.stress is not None:
                header += [f'{stress}="{flat(s.stress)}"'] if virial is None else [f'{virial}="{flat(-s.stress * s.volume)}"']
            header += [f"{key}={value}" for key, value in {**s.info, **extra}.items()]
            lines += [str(len(s)), " ".join(header)]
            from ase.data import chemical_symbols

            for k in range(len(s)):
                row = [*s.positions[k], *(s.forces[k] if s.forces is not None else ())]
                lines.append(f"{chemical_symbols[s.numbers[k]]} " + " ".join(f"{x:.10f}" for x in row))
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return put


def assert_same(a, b, atol=1e-8):
    """Geometry and labels of two structures agree."""
    np.testing.assert_array_equal(a.numbers, b.numbers)
    np.testing.assert_array_equal(a.pbc, b.pbc)
    for name in ("positions", "cell", "energy", "forces", "stress"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            np.testing.assert_allclose(x, y, atol=atol, err_msg=name)


@pytest.fixture
def same():
    return assert_same


@pytest.fixture
def put(tmp_path):
    """Writes one frame of two atoms with a comment line of one's choice, and forces of 0.1 and -0.1 if asked for."""

    def put(text, forces=False, name="data.xyz"):
        columns = (" 0.1 0 0", " -0.1 0 0") if forces else ("", "")
        path = tmp_path / name
        path.write_text(f"2\n{text}\nH 0 0 0{columns[0]}\nH 0 0 0.75{columns[1]}\n")
        return path

    return put
