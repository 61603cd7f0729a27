"""Elastic tensor of a crystal by exact derivatives of forces and stress, with the atoms relaxed.

With f the forces, s the Cauchy stress, and u the positions that follow an affine strain e, the atoms answer a strain by

    du/de = K^-1 df/de,    K = -df/du  (the Hessian; without the three translations)

and the stress-strain coefficients are B = ds/de + (ds/du) (du/de). Without a stress they are the elastic constants C; under one
they are those that decide on stability (Wallace; Wang et al., Phys. Rev. Lett. 71, 4182 (1993)). All three derivatives are
exact. Voigt's order is xx, yy, zz, yz, xz, xy; strains in it are those of engineers (twice the shear components).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.data.batch import pad
from equipot.evaluation import one_structure
from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.potential import Potential, evaluate
from equipot.second_derivatives import hessian
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.journal import Journal
from equipot.workflows.relax import RelaxConfig
from equipot.workflows.relax.bounds import PAIRS, operations
from equipot.workflows.relax.kept import relax_kept

FLAT = 1e-4
"""Curvature (eV/Å^2) below which a direction costs no energy but for rounding."""
BATCH = 32
"""Columns of a Hessian that are computed at once."""


@dataclass(frozen=True)
class ElasticTensor:
    """Stress-strain coefficients of a crystal and what follows from them. Moduli are in GPa."""

    relaxed: np.ndarray
    """(6, 6) with the atoms relaxed, GPa."""
    clamped: np.ndarray
    """(6, 6) with the atoms at their fractional coordinates, GPa."""
    asymmetry: float
    """Largest difference between a component and its transpose, GPa: zero but for rounding and a remaining stress."""
    group_error: float
    """Largest difference to the average over the space group, GPa."""
    stress: np.ndarray
    """(3, 3) of the structure, GPa."""
    soft_modes: int
    """Directions of the atoms in which the Hessian is negative: the structure is no minimum then."""
    finite_strains: np.ndarray | None = None
    """(6, 6) from stresses of strained and relaxed cells, GPa; None where they were not computed."""

    @property
    def eigenvalues(self) -> np.ndarray:
        """(6,) eigenvalues in Mandel's notation, GPa, ascending; all are positive in a stable crystal (Born)."""
        scale = np.array([1, 1, 1, *[np.sqrt(2)] * 3])
        symmetric = (self.relaxed + self.relaxed.T) / 2
        return np.linalg.eigvalsh(symmetric * scale[:, None] * scale[None])

    @property
    def is_stable(self) -> bool:
        """Whether any small strain costs energy."""
        return bool(self.eigenvalues[0] > 0)

    @property
    def moduli(self) -> dict[str, float]:
        """Averages over orientations of a polycrystal by Voigt, Reuss and Hill (Proc. Phys. Soc. A 65, 349 (1952))."""
        c = (self.relaxed + self.relaxed.T) / 2
        s = np.linalg.inv(c)
        diagonal = lambda m: (m[0, 0] + m[1, 1] + m[2, 2], m[0, 1] + m[0, 2] + m[1, 2], m[3, 3] + m[4, 4] + m[5, 5])
        a, b, d = diagonal(c)
        k_voigt, g_voigt = (a + 2 * b) / 9, (a - b + 3 * d) / 15
        a, b, d = diagonal(s)
        k_reuss, g_reuss = 1 / (a + 2 * b), 15 / (4 * a - 4 * b + 3 * d)
        k, g = (k_voigt + k_reuss) / 2, (g_voigt + g_reuss) / 2
        return {
            "bulk_modulus_voigt_GPa": k_voigt, "bulk_modulus_reuss_GPa": k_reuss, "bulk_modulus_hill_GPa": k,
            "shear_modulus_voigt_GPa": g_voigt, "shear_modulus_reuss_GPa": g_reuss, "shear_modulus_hill_GPa": g,
            "youngs_modulus_hill_GPa": 9 * k * g / (3 * k + g), "poisson_ratio_hill": (3 * k - 2 * g) / (6 * k + 2 * g),
            "universal_anisotropy": 5 * g_voigt / g_reuss + k_voigt / k_reuss - 6,
        }  # fmt: skip


class Derivatives(NamedTuple):
    """Exact derivatives of a crystal, in the units of ``ElasticTensor``, before an average over the space group."""

    relaxed: np.ndarray
    clamped: np.ndarray
    stress: np.ndarray
    soft_modes: int


def elastic_tensor(potential: Potential, structure: Any, check: float = 0.0, journal: Journal | None = None) -> ElasticTensor:
    """Compute the elastic tensor of a relaxed crystal from exact derivatives.

    Args:
        potential: Potential, best in double precision.
        structure: Relaxed crystal, ``ase.Atoms`` or ``Structure``.
        check: Strain of a check by finite strains, in which strained cells are relaxed; 0 for none.
        journal: Where derivatives and relaxed cells are kept; None to keep none.

    Raises:
        ValueError: a structure that does not repeat in three directions, several structures, or an unknown element.
    """
    structure = one_structure(structure, "an elastic tensor is")
    if not structure.pbc.all() or not structure.volume:
        raise ValueError(f"{structure.name} does not repeat in three directions, and so has no elastic tensor")
    if structure.fixed is not None and structure.fixed.any():
        raise ValueError(f"{structure.name} has fixed atoms, which do not answer a strain; remove the constraints")
    potential.check([structure])
    journal = journal or Journal()
    found = journal.once("derivatives", Derivatives, lambda: exact_derivatives(potential, structure))
    averaged = averaged_over_group(found.relaxed, structure)
    return ElasticTensor(
        relaxed=averaged,
        clamped=averaged_over_group(found.clamped, structure),
        asymmetry=float(np.abs(found.relaxed - found.relaxed.T).max()),
        group_error=float(np.abs(averaged - found.relaxed).max()),
        stress=found.stress,
        soft_modes=found.soft_modes,
        finite_strains=by_finite_strains(potential, structure, check, journal) if check else None,
    )


def exact_derivatives(potential: Potential, structure: Structure) -> Derivatives:
    """Differentiate the stress of a crystal by strains, with atoms relaxed and clamped."""
    graph = jax.device_put(pad([structure], potential.cutoff, dtype=potential.dtype, extent=potential.extent([structure])))
    bare = potential.replace(metadata=Metadata(), posterior=None)
    stress, clamped, pull = (np.asarray(x, np.float64) for x in _strained(bare, graph))
    matrix = np.asarray(jax.jit(hessian, static_argnames="batch_size")(bare, graph, batch_size=BATCH), np.float64)
    n = 3 * len(structure)
    answers, soft = internal_answers(matrix.reshape(n, n), pull.reshape(6, n))
    moved = np.asarray(_displaced(bare, graph, jnp.asarray(answers.reshape(6, -1, 3), potential.dtype)), np.float64)
    return Derivatives(voigt(clamped + moved) / GPa, voigt(clamped) / GPa, stress / GPa, soft)


@jax.jit
def _strained(potential: Potential, graph: Graph) -> tuple[Array, Array, Array]:
    """Compute the stress (3, 3), and derivatives by the six strains of stress (6, 3, 3) and forces (6, atoms, 3)."""

    def at(strain: Float[Array, "3 3"]) -> tuple[Array, Array]:
        turn = jnp.eye(3, dtype=strain.dtype) + strain
        place = lambda x, rest: jnp.matmul(x if rest is None else x + rest, turn, precision="highest")
        deformed = graph.replace(
            positions=place(graph.positions, graph.positions_residual), positions_residual=None,
            cell=place(graph.cell, graph.cell_residual), cell_residual=None,
        )  # fmt: skip
        out = evaluate(potential, deformed, ("forces", "stress"))
        return jnp.asarray(out.stress)[0], jnp.asarray(out.forces)

    directions = jnp.asarray(strains(), graph.dtype)
    zero = jnp.zeros((3, 3), graph.dtype)
    one = lambda e: jax.jvp(at, (zero,), (e,))
    (stress, _), (slopes, pull) = jax.lax.map(one, directions)
    return stress[0], slopes, pull


@jax.jit
def _displaced(potential: Potential, graph: Graph, answers: Float[Array, "6 atoms 3"]) -> Float[Array, "6 3 3"]:
    """Compute the derivatives of the stress along displacements of the atoms."""

    def at(positions: Array) -> Array:
        moved = graph.replace(positions=positions, positions_residual=graph.positions_residual)
        return jnp.asarray(evaluate(potential, moved, ("stress",)).stress)[0]

    return jax.lax.map(lambda u: jax.jvp(at, (graph.positions,), (u,))[1], answers)


def strains() -> np.ndarray:
    """Return the six unit strains of Voigt's notation, (6, 3, 3)."""
    out = np.zeros((6, 3, 3))
    for k, (i, j) in enumerate(PAIRS):
        out[k, i, j] += 0.5
        out[k, j, i] += 0.5
    return out


def voigt(slopes: Float[np.ndarray, "6 3 3"]) -> Float[np.ndarray, "6 6"]:
    """Arrange derivatives of the stress by strains: component of the stress, strain."""
    return np.array([[slopes[k][pair] for k in range(6)] for pair in PAIRS])


def internal_answers(matrix: Float[np.ndarray, "n n"], pull: Float[np.ndarray, "6 n"]) -> tuple[Float[np.ndarray, "6 n"], int]:
    """Solve for the displacements that undo the forces of each strain, and count soft modes.

    Directions in which the Hessian is zero but for rounding, the translations among them, are left out.
    """
    translations = np.tile(np.eye(3), (1, len(matrix) // 3)) / np.sqrt(len(matrix) / 3)
    across = np.eye(len(matrix)) - translations.T @ translations
    values, vectors = np.linalg.eigh(across @ (matrix + matrix.T) @ across / 2)
    small = max(1e-6 * np.abs(values).max(initial=0), FLAT)
    kept = np.abs(values) > small
    inverse = np.where(kept, 1 / np.where(kept, values, 1), 0)
    return (pull @ vectors * inverse) @ vectors.T, int((values < -small).sum())


def averaged_over_group(tensor: Float[np.ndarray, "6 6"], structure: Structure) -> Float[np.ndarray, "6 6"]:
    """Average a tensor in Voigt's notation over the rotations of the structure's space group."""
    rotations = operations(structure, 1e-3).rotations
    whole = np.zeros((3, 3, 3, 3))
    for a, (i, j) in enumerate(PAIRS):
        for b, (k, l) in enumerate(PAIRS):
            whole[i, j, k, l] = whole[j, i, k, l] = whole[i, j, l, k] = whole[j, i, l, k] = tensor[a, b]
    turned = np.mean([np.einsum("ai,bj,ck,dl,ijkl->abcd", r, r, r, r, whole, optimize=True) for r in rotations], axis=0)
    return np.array([[turned[i, j, k, l] for k, l in PAIRS] for i, j in PAIRS])


def by_finite_strains(potential: Potential, structure: Structure, size: float, journal: Journal) -> np.ndarray:
    """Compute the stress-strain coefficients (6, 6), GPa, from relaxed cells under strains of +-``size``."""
    settings = RelaxConfig(cell="fixed", fmax=1e-5, symmetry=False)
    turns = [np.eye(3) + sign * size * e for e in strains() for sign in (1, -1)]
    bare = structure.without_labels()
    strained = [bare.replace(positions=bare.positions @ t, cell=bare.cell @ t) for t in turns]
    found = relax_kept(journal, "strained", potential, strained, settings)
    stresses = np.array([x.structure.stress if x.converged else np.full((3, 3), np.nan) for x in found])
    slopes = (stresses[::2] - stresses[1::2]) / (2 * size)
    return averaged_over_group(voigt(slopes) / GPa, structure)


def table_of(tensor: Sequence[Sequence[float]] | np.ndarray) -> list[list[str]]:
    """Write a tensor in Voigt's notation as rows of cells with headings."""
    names = ["xx", "yy", "zz", "yz", "xz", "xy"]
    return [["GPa", *names], *([name, *(f"{value:z.2f}" for value in row)] for name, row in zip(names, tensor, strict=True))]
