"""A small finite-element program: a block of hexahedra with eight nodes, Newton's method, any hyperelastic law in numpy."""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

CORNERS = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
POINTS = (np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) / np.sqrt(3) + 1) / 2
"""Gauss points of the unit cube, with equal weights."""


def slopes(at):
    """Derivatives of the trilinear shape functions of the unit cube, (8, 3)."""
    values = np.where(CORNERS == 1, at, 1 - at)
    signs = np.where(CORNERS == 1, 1.0, -1.0)
    return np.stack([signs[:, d] * values[:, (d + 1) % 3] * values[:, (d + 2) % 3] for d in range(3)], axis=1)


class Block:
    """A block of nx, ny, nz elements; lengths in units of its own."""

    def __init__(self, counts, lengths):
        self.counts, grid = counts, [np.linspace(0, a, n + 1) for n, a in zip(counts, lengths, strict=True)]
        self.nodes = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
        shape = tuple(n + 1 for n in counts)
        first = np.array([[i, j, k] for i in range(counts[0]) for j in range(counts[1]) for k in range(counts[2])])
        self.elements = np.array([np.ravel_multi_index((CORNERS + cell).T, shape) for cell in first])
        size = np.array(lengths) / counts
        self.volume = np.prod(size) / len(POINTS)
        self.slopes = np.array([slopes(at) / size for at in POINTS])

    def gradients(self, places):
        """Deformation gradients at all Gauss points, (elements, points, 3, 3)."""
        return np.einsum("eai,paJ->epiJ", places[self.elements], self.slopes)

    def assembled(self, law, places):
        """Forces (dofs,) on nodes by the stress, and their derivative by the places, sparse."""
        f = self.gradients(places)
        stress, tangent = law.first_piola_kirchhoff(f), law.tangent(f)
        forces = np.einsum("epiJ,paJ->eai", stress, self.slopes) * self.volume
        stiffness = np.einsum("epiJkL,paJ,pbL->eaibk", tangent, self.slopes, self.slopes, optimize=True) * self.volume
        dofs = (3 * self.elements[:, :, None] + np.arange(3)).reshape(len(self.elements), 24)
        total = np.zeros(places.size)
        np.add.at(total, dofs, forces.reshape(-1, 24))
        rows, columns = np.repeat(dofs, 24, axis=1).ravel(), np.tile(dofs, (1, 24)).ravel()
        return total, scipy.sparse.csr_matrix((stiffness.ravel(), (rows, columns)), (places.size, places.size))


def solved(block, law, fixed, start, steps=20):
    """Places of the nodes where the forces on free components vanish, from ``start``, whose components ``fixed`` stay."""
    places, free = start.copy(), np.flatnonzero(~fixed.ravel())
    for _ in range(steps):
        forces, stiffness = block.assembled(law, places)
        if np.abs(forces[free]).max() < 1e-11:
            return places, forces.reshape(-1, 3)
        change = scipy.sparse.linalg.spsolve(stiffness[free][:, free].tocsc(), -forces[free])
        places.ravel()[free] += change
    raise AssertionError(f"Newton's method leaves forces of {np.abs(forces[free]).max():.1e} after {steps} steps")
