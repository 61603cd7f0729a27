"""Degrees of freedom that a trajectory has: all but those of motions that are held at rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from equipot.workflows.statistics.trajectory import Snapshot, Trajectory


class HeldMotions:
    """Velocities over a trajectory, by which is told which atoms, and whether centre of mass and orientation, are held.

    A component of a velocity that is zero in every frame, as that of an atom under FixAtoms, is held, and lacks one degree of
    freedom. A velocity of the whole takes 3 M_e / M degrees of freedom of an element e, a rotation tr(I^-1 I_e), with the
    masses and the tensors of inertia of the element and of all atoms: of each momentum p_i / m_i^(1/2), the part along these
    motions is zero. Where single atoms are held, the momentum of the others is not conserved, and the whole is free.
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
        if self.still.any():
            return [float(self.still[index].sum()) for index in groups]
        m, lacking = self.masses, np.zeros(len(groups))
        limit = self.HELD * self.kinetic / len(m)
        if len(m) > 1 and self.drift < limit:
            lacking += [3 * m[index].sum() / m.sum() for index in groups]
        if self.positions is not None and self.turning < limit:
            arm = self._arms(self.positions)
            inverse = np.linalg.pinv(inertia(m, arm), rcond=1e-6)
            lacking += [np.trace(inverse @ inertia(m[index], arm[index])) for index in groups]
        return [float(x) for x in lacking]

    @property
    def free(self) -> float:
        """Number of degrees of freedom of all atoms, at least one."""
        count = len(self.masses)
        return max(1.0, 3.0 * count - self.lacking([np.arange(count)])[0])


def inertia(masses: Float[np.ndarray, " atoms"], arm: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "3 3"]:
    """Compute the tensor of inertia (amu Å^2) about the origin of ``arm`` (Å)."""
    return float(masses @ np.sum(arm**2, axis=1)) * np.eye(3) - (masses[:, None] * arm).T @ arm
