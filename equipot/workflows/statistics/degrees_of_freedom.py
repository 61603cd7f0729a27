"""Degrees of freedom that a trajectory has: all but those of motions that are held at rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from equipot.rigid_motions import LINEAR
from equipot.workflows.statistics.trajectory import Snapshot, Trajectory


class HeldMotions:
    """Velocities over a trajectory, by which is told which atoms, and whether centre of mass and orientation, are held.

    A component of a velocity that is zero in every frame, as those of an atom under FixAtoms, is held. So are the centre of
    mass and the orientation, where the kinetic energy of these motions of the whole is next to none. In coordinates weighted by
    masses, what is held is a subspace, and the degrees of freedom that an element lacks are the diagonal elements of the
    projection on that subspace, summed over the element: 3 M_e / M of the centre of mass, tr(I^-1 I_e) of the orientation.
    """

    HELD = 1e-3
    """Share of the energy of free motion below which a motion of the whole counts as held."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.masses, self.isolated = trajectory.masses, not any(trajectory.pbc) and len(trajectory.masses) > 1
        self.kinetic = self.drift = self.turning = 0.0
        self.still = np.ones((len(self.masses), 3), bool)
        """(atoms, 3) components of velocities that have been zero in all frames."""
        self.positions: np.ndarray | None = None

    def add(self, frame: Snapshot) -> None:
        """Add the velocities of a frame."""
        assert frame.velocities is not None, "asked before"
        v, m = np.asarray(frame.velocities, np.float64), self.masses
        momentum = m @ v
        self.still &= v == 0
        self.kinetic += float(m @ np.sum(v**2, axis=1))
        self.drift += float(momentum @ momentum / m.sum())
        if self.isolated:
            arm = self._arms(frame.positions)
            self.positions = frame.positions if self.positions is None else self.positions
            spin = np.sum(m[:, None] * np.cross(arm, v), axis=0)
            self.turning += float(spin @ np.linalg.pinv(inertia(m, arm), rcond=1e-6) @ spin)

    def _arms(self, positions: np.ndarray) -> Float[np.ndarray, "atoms 3"]:
        r = np.asarray(positions, np.float64)
        return r - self.masses @ r / self.masses.sum()

    def lacking(self, groups: Sequence[np.ndarray]) -> list[float]:
        """Return the degrees of freedom that each group of atoms lacks."""
        if self.still.all():
            # Nothing moves at all: a temperature of zero, whatever may move.
            return [0.0] * len(groups)
        held = np.where(self.still, 1.0, 0.0) + np.sum(self._rigid() ** 2, axis=0)
        return [float(held[index].sum()) for index in groups]

    def _rigid(self) -> Float[np.ndarray, "motions atoms 3"]:
        """Return orthonormal mass-weighted motions of the whole that are held, without held components."""
        root, limit = np.sqrt(self.masses)[:, None], self.HELD * self.kinetic / len(self.masses)
        unit = lambda moves: np.array(moves) / max(max(map(np.linalg.norm, moves)), 1e-300)
        motions = [np.zeros((0, len(root), 3))]
        if len(self.masses) > 1 and self.drift < limit:
            motions.append(unit([root * axis for axis in np.eye(3)]))
        if self.positions is not None and self.turning < limit:
            motions.append(unit([root * np.cross(axis, self._arms(self.positions)) for axis in np.eye(3)]))
        whole = np.where(self.still, 0.0, np.concatenate(motions))
        if not len(whole):
            return whole
        _, sizes, rows = np.linalg.svd(whole.reshape(len(whole), -1), full_matrices=False)
        return rows[sizes > LINEAR].reshape(-1, len(root), 3)

    @property
    def free(self) -> float:
        """Number of degrees of freedom of all atoms, at least one."""
        count = len(self.masses)
        return max(1.0, 3.0 * count - self.lacking([np.arange(count)])[0])


def inertia(masses: Float[np.ndarray, " atoms"], arm: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "3 3"]:
    """Compute the tensor of inertia (amu Å^2) about the origin of ``arm`` (Å)."""
    return float(masses @ np.sum(arm**2, axis=1)) * np.eye(3) - (masses[:, None] * arm).T @ arm
