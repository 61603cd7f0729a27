"""The laws that every term obeys, each over every awkward system, in double precision.

``cases(term)`` lists them as callables that raise AssertionError where a law is broken. Exact laws are broken by rounding only;
derivatives are compared with central differences of fourth order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jaxtyping import Float

from equipot.data.batch import pad
from equipot.potential import atomic, evaluate
from equipot.quantities import DIPOLE, QUADRUPOLE, Quantity
from equipot.structure import Structure
from equipot.term import Term
from equipot.testing.derivatives import STEP, forces, hessians, stress, training_gradient, virials_without_a_volume
from equipot.testing.smoothness import smooth_at_the_cutoff, smooth_inside_the_cutoff
from equipot.testing.subject import WANT, Subject, common_shape, relative, small
from equipot.testing.systems import CLUSTERS, CRYSTALS, DIMER, MOLECULE, OPEN, SLAB, SYSTEMS, TRICLINIC, structure

__all__ = ["LAWS", "Case", "Law", "cases"]

APART = 64.0
"""Distance of copies that do not see each other, Å: a power of two, so that moved coordinates are exact."""


class Law(NamedTuple):
    """A statement about a subject, or about a subject and a system."""

    name: str
    check: Callable[..., None]
    """Raises AssertionError; called with the subject, and with one of ``systems`` where there are any."""
    systems: tuple[Structure, ...] = SYSTEMS
    """Systems to check one by one; none for a law of the term as a whole."""
    holds_for: Callable[[Subject], bool] = lambda subject: True


class Case(NamedTuple):
    """A law to be checked for one subject and, unless it is of the term as a whole, one system."""

    law: Law
    subject: Subject
    system: Structure | None

    def __str__(self) -> str:
        return " - ".join([str(self.subject), self.law.name, *([self.system.source] if self.system else [])])

    def __call__(self) -> None:
        """Check the law.

        Raises:
            AssertionError: the law is broken; the message says by how much.
        """
        with jax.enable_x64(True):
            self.law.check(self.subject, *([self.system] if self.system else []))


def cases(subject: Subject | Term) -> Iterator[Case]:
    """List every law that a term should obey, for every system. Nothing is computed before a case is called.

    Args:
        subject: a term with its cutoff (Å); as a ``Subject`` it says besides which laws it is known not to obey.
    """
    known = subject if isinstance(subject, Subject) else Subject(subject)
    for law in LAWS:
        if law.holds_for(known):
            for system in law.systems or (None,):
                if system is None or _applies(known, system):
                    yield Case(law, known, system)


def _applies(subject: Subject, system: Structure) -> bool:
    """Return whether the term does not refuse the system, as an Ewald sum refuses a wire."""
    try:
        subject.term.check(system)
    except ValueError:
        return False
    return True


def rotated(subject: Subject, system: Structure) -> None:
    """The energy does not change when everything turns; forces, stress and what the term provides turn along."""
    _turned(subject, system, _rotation(7))


def reflected(subject: Subject, system: Structure) -> None:
    """The energy of a mirror image is the same; forces and stress are mirrored."""
    _turned(subject, system, -_rotation(7))


def _rotation(seed: int) -> Float[np.ndarray, "3 3"]:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def _turned(subject: Subject, system: Structure, q: Float[np.ndarray, "3 3"]) -> None:
    n = len(system)
    before = subject.predict(system)
    after = subject.predict(system.replace(positions=system.positions @ q.T, cell=system.cell @ q.T))
    small("energy", relative(after.interaction[:1], before.interaction[:1]), 1e-10)
    small("forces", relative(after.forces[:n], before.forces[:n] @ q.T), 1e-10)
    if system.pbc.any():
        small("stress", relative(after.stress[0], q @ before.stress[0] @ q.T), 1e-10)
    for row in subject.term.provides:
        rows = slice(n if row.per == "atom" else 1)
        if turn := TURNS.get(row.shape):
            small(row.name, _apart(row, after[row][rows], turn(before[row][rows], q), system), 1e-10)


TURNS: dict[tuple[int, ...], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    (): lambda x, q: x,
    (3,): lambda x, q: x @ q.T,
    (3, 3): lambda x, q: q @ x @ q.T,
}
"""How a quantity turns under a rotation or reflection q, by the shape of one value: scalars, polar vectors, tensors."""


def chirality(subject: Subject) -> None:
    """A term that is said to tell mirror images apart does so."""
    mirrored = TRICLINIC.replace(positions=TRICLINIC.positions * [1, 1, -1], cell=TRICLINIC.cell * [1, 1, -1])
    difference = relative(subject.predict(mirrored).interaction[0], subject.predict(TRICLINIC).interaction[0])
    assert difference > 1e-6, f"mirror images differ by {difference:.1e} only: the term is not chiral"


def moved_and_permuted(subject: Subject, system: Structure) -> None:
    """Neither the origin, nor the image that stands for an atom, nor the order of atoms matters."""
    n = len(system)
    order = np.random.default_rng(0).permutation(n)
    images = np.random.default_rng(1).integers(-2, 3, (n, 3)) * system.pbc
    moved = system.positions + [0.3, -1.7, 2.9] + images @ system.cell
    before = subject.predict(system)
    after = subject.predict(system.replace(positions=moved[order], numbers=system.numbers[order]))
    small("energy", relative(after.interaction[:1], before.interaction[:1]), 1e-10)
    small("forces", relative(after.forces[:n], before.forces[:n][order]), 1e-10)
    small("energies of the atoms", relative(after.interactions[:n], before.interactions[:n][order]), 1e-10)
    if system.pbc.any():
        small("stress", relative(after.stress[0], before.stress[0]), 1e-10)
    for row in _of_atoms(subject):
        small(row.name, relative(after[row][:n], before[row][:n][order]), 1e-10)
    # A dipole of a charged system depends on the origin, but not on the order.
    permuted = subject.predict(system.replace(positions=system.positions[order], numbers=system.numbers[order]))
    for row in _of_graphs(subject):
        small(row.name, _apart(row, permuted[row][:1], before[row][:1], system), 1e-10)


def parts(subject: Subject, system: Structure) -> None:
    """Energies and virials of atoms sum to those of the system, and nothing pushes or turns a system by itself."""
    out = subject.predict(system)
    small("sum of energies", relative(out.interactions.sum(), out.interaction[0]), 1e-12)
    small("sum of forces", out.forces.sum(axis=0), 1e-12)
    if system.pbc.any():
        small("sum of virials", relative(out.virials.sum(axis=0) / system.volume, out.stress[0]), 1e-12)
        small("asymmetry of the stress", relative(out.stress[0], out.stress[0].T), 1e-14)
    else:
        assert np.isnan(out.stress[0]).all(), "a stress without a volume"
        small("torque", np.cross(system.positions, out.forces[: len(system)]).sum(axis=0), 1e-10)


def two_far_copies(subject: Subject, system: Structure) -> None:
    """Two copies that do not see each other have twice the energy."""
    # Coordinates of few digits stay exact where they are moved: what is left is the term's own.
    positions = np.round(system.positions * 2.0**40) / 2.0**40
    [one] = subject.prepared(system.replace(positions=positions))
    both = one.replace(
        numbers=np.tile(one.numbers, 2), positions=np.concatenate([positions, positions + [0, 0, APART]]), **_doubled(one)
    )
    alone, together = subject.predict(one), subject.predict(both)
    small("energy", relative(together.interaction[0], 2 * alone.interaction[0]), 1e-12)
    for row in _of_atoms(subject):
        small(row.name, relative(together[row][: len(both)], np.concatenate([alone[row][: len(one)]] * 2)), 1e-12)


def repeated_cell(subject: Subject, system: Structure) -> None:
    """A crystal described by a cell of twice the length has twice the energy, and the same stress."""
    [single] = subject.prepared(system)
    double = _repeated(single)
    one, two = subject.predict(single), subject.predict(double, beside=[_repeated(crystal) for crystal in CRYSTALS])
    small("energy", relative(two.interaction[0], 2 * one.interaction[0]), 1e-11)
    small("stress", relative(two.stress[0], one.stress[0]), 1e-11)
    for row in _of_atoms(subject):
        small(row.name, relative(two[row][: len(double)], np.concatenate([one[row][: len(system)]] * 2)), 1e-11)


def _repeated(system: Structure) -> Structure:
    """Describe a crystal by a cell of twice the length along the first vector that repeats."""
    axis = np.flatnonzero(system.pbc)[0]
    cell = system.cell.copy()
    cell[axis] *= 2
    positions = np.concatenate([system.positions, system.positions + system.cell[axis]])
    return system.replace(numbers=np.tile(system.numbers, 2), positions=positions, cell=cell, **_doubled(system))


def _doubled(system: Structure) -> dict[str, float]:
    """Return charge (e) and unpaired electrons of two copies of a system."""
    return {"charge": 2 * system.charge, "spin": 2 * system.spin}


def _of_atoms(subject: Subject) -> list[Quantity]:
    return [row for row in subject.term.provides if row.per == "atom"]


def _of_graphs(subject: Subject) -> list[Quantity]:
    return [row for row in subject.term.provides if row.per == "graph"]


def _apart(row: Quantity, a: np.ndarray, b: np.ndarray, system: Structure) -> float:
    """Compute how far values of a provided quantity are apart, see ``relative``.

    Only moments of a system that repeats may be undefined, and must then be so in both.
    """
    undefined = np.isnan(a) & np.isnan(b) & (row in (DIPOLE, QUADRUPOLE) and system.pbc.any())
    return relative(np.where(undefined, 0, a), np.where(undefined, 0, b))


def padded_and_batched(subject: Subject) -> None:
    """Neither padding nor another system in the batch changes anything."""
    n, m = len(MOLECULE), len(SLAB)
    systems = MOLECULE.replace(charge=1.0, spin=1.0), SLAB.replace(charge=-1.0, spin=2.0)
    alone = [subject.predict(system) for system in systems]
    together = subject.predict(*systems)
    small("energy", relative(together.interaction, [out.interaction[0] for out in alone]), 1e-13)
    small("forces", relative(together.forces[:n], alone[0].forces[:n]), 1e-12)
    small("forces", relative(together.forces[n : n + m], alone[1].forces[:m]), 1e-12)
    small("stress", relative(together.stress[1], alone[1].stress[0]), 1e-12)
    assert not together.forces[n + m :].any(), "padding atoms feel a force"
    for row in _of_graphs(subject):
        for k, (out, system) in enumerate(zip(alone, systems, strict=True)):
            small(row.name, _apart(row, together[row][k], out[row][0], system), 1e-12)
    for row in _of_atoms(subject):
        small(row.name, relative(together[row][: n + m], np.concatenate([alone[0][row][:n], alone[1][row][:m]])), 1e-12)


def features(subject: Subject) -> None:
    """What the last linear layer acts on is of an atom and its environment: the same however a system is turned, moved and
    numbered, and whatever else is in the batch; and no step where a neighbour comes within the cutoff.

    Estimates of uncertainty rest on them. A term that has none obeys.
    """
    of = lambda *systems: np.asarray(_compiled_features(subject.potential, subject.graph(*systems)))
    n, m = len(TRICLINIC), len(MOLECULE)
    if _compiled_features(subject.potential, subject.graph(TRICLINIC)) is None:
        return
    known, other = of(TRICLINIC)[:n], of(MOLECULE)[:m]
    q, order = _rotation(7) if subject.chiral else -_rotation(7), np.random.default_rng(0).permutation(n)
    turned = TRICLINIC.replace(positions=TRICLINIC.positions @ q.T, cell=TRICLINIC.cell @ q.T)
    moved = TRICLINIC.replace(positions=TRICLINIC.positions[order] + [0.3, -1.7, 2.9], numbers=TRICLINIC.numbers[order])
    small("features of a turned system", relative(of(turned)[:n], known), 1e-10)
    small("features of a moved system", relative(of(moved)[:n], known[order]), 1e-10)
    small("features in a batch", relative(of(TRICLINIC, MOLECULE)[: n + m], np.concatenate([known, other])), 1e-12)
    inside, outside = (
        of(DIMER.replace(positions=[[0, 0, 0], [0, 0, subject.cutoff + sign * STEP]]))[: len(DIMER)] for sign in (-1, 1)
    )
    small("step of the features at the cutoff", relative(inside, outside), 1e-6)


_compiled_features = jax.jit(lambda potential, graph: atomic(potential, graph).features)


def without_jit(subject: Subject) -> None:
    """A program that is compiled and padded gives the numbers of one that is not."""
    want = (*WANT, *(row.name for row in subject.term.provides))
    plain: Any = evaluate(subject.potential, pad(subject.prepared(DIMER), subject.cutoff, dtype=np.float64), want)
    padded = subject.predict(DIMER)
    small("energy", relative(plain.interaction, padded.interaction[:1]), 1e-13)
    small("forces", relative(plain.forces, padded.forces[:2]), 1e-12)
    for row in subject.term.provides:
        small(row.name, relative(plain[row], padded[row][: 2 if row.per == "atom" else 1]), 1e-12)


def unknown_element(subject: Subject) -> None:
    """An element that is not in the table gives NaN on the device, and an error with its name on the host."""
    [alien] = subject.prepared(structure([8, 14], [[0, 0, 0], [0, 0, 1.6]], source="alien"))
    assert np.isnan(subject.predict(alien).interaction[0]), "an element that is not in the table has an energy"
    try:
        subject.potential.check([alien])
    except ValueError as error:
        assert "alien: the potential does not know Si" in str(error), f"the error names neither: {error}"
    else:
        raise AssertionError("an element that is not in the table is let through")


def single_precision(subject: Subject) -> None:
    """A float32 potential is computed in float32 where JAX has 64 bits: one double constant would double the cost."""
    want = ("energy", *(row.name for row in subject.term.provides))
    single = subject.potential.astype("float32")
    known = pad(subject.prepared(MOLECULE), subject.cutoff, common_shape(subject.cutoff))
    found = _doubles(jax.make_jaxpr(lambda p, g: evaluate(p, g, want))(single, known).jaxpr, known.num_atoms)
    assert not found, f"{len(found)} intermediate results are in double precision, {found[0]} first"


def _doubles(jaxpr: Any, atoms: int) -> Sequence[Any]:
    """Features of atoms or pairs in double precision that make others double, in a program and in what it calls."""
    strong = lambda x: x.dtype == jnp.float64 and not x.weak_type and len(x.shape) > 1 and max(x.shape) >= atoms
    found = [x.aval for equation in jaxpr.eqns for x in equation.outvars if strong(x.aval)]
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            found += _doubles(inner, atoms)
    return found


def _sees_space(subject: Subject) -> bool:
    return "space" in subject.term.needs


def _is_local(subject: Subject) -> bool:
    return not subject.collective


LAWS = (
    Law("rotation", rotated),
    Law("reflection", reflected, holds_for=lambda subject: not subject.chiral),
    Law("chirality", chirality, (), lambda subject: subject.chiral),
    Law("translation and permutation", moved_and_permuted),
    Law("forces", forces),
    Law("stress", stress, CRYSTALS),
    Law("virials without a volume", virials_without_a_volume, OPEN, _sees_space),
    Law("parts", parts),
    Law("two far copies", two_far_copies, CLUSTERS, _is_local),
    Law("repeated cell", repeated_cell, CRYSTALS, lambda subject: subject.extensive),
    Law("padding and batching", padded_and_batched, ()),
    Law("features", features, (), lambda subject: subject.term.has_elements),
    Law("without jit", without_jit, ()),
    Law("smooth at the cutoff", smooth_at_the_cutoff, (), _is_local),
    Law("smooth inside the cutoff", smooth_inside_the_cutoff, ()),
    Law("Hessian", hessians, ()),
    Law("unknown element", unknown_element, (), lambda subject: subject.term.has_elements),
    Law("training gradient", training_gradient, ()),
    Law("single precision", single_precision, ()),
)
