"""Born effective charges and dielectric tensors of crystals, for the splitting of longitudinal and transverse optical modes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from equipot import units
from equipot.evaluation import evaluate
from equipot.potential import Potential
from equipot.quantities import BORN_CHARGES, POLARIZABILITY
from equipot.structure import Structure
from equipot.workflows.phonons.config import PhononsConfig

CHARGED = 0.5
"""Sum of the Born effective charges of a cell (e) from which on they are not those of its atoms."""


class Polar(NamedTuple):
    """Response of a crystal to electric fields."""

    born: Float[np.ndarray, "atoms 3 3"]
    """Born effective charges Z[i, a, b], polarisation along a by displacement along b, e."""
    dielectric: Float[np.ndarray, "3 3"]
    """High-frequency dielectric tensor."""
    origin: str
    """Where both come from, for messages."""


def polar_response(
    potential: Potential, primitive: Structure, atoms: Any, settings: PhononsConfig
) -> tuple[Polar | None, tuple[str, ...]]:
    """Find Born effective charges and the dielectric tensor of a primitive cell.

    Args:
        potential: Potential.
        primitive: primitive cell.
        atoms: the same as phonopy's atoms.
        settings: says where both come from.

    Returns:
        The response, None where there is none to be had, and notes that say so.
    """
    if settings.non_analytic == "none":
        return None, ("the splitting of LO and TO modes is switched off",) if _may_be_polar(primitive) else ()
    if settings.born is not None:
        return _from_file(settings.born, atoms), ()
    if not _may_be_polar(primitive):
        return None, ()
    born, why = _born_charges(potential, primitive)
    if born is None:
        return None, (f"no splitting of LO and TO modes, as {why}: give a file BORN, or read optical modes at Gamma as TO",)
    dielectric, whence = _dielectric(potential, primitive, settings.dielectric)
    if dielectric is None:
        return None, (
            "no splitting of LO and TO modes, as the potential has Born effective charges but no polarizability: give "
            "`dielectric`",
        )
    from phonopy.structure.symmetry import symmetrize_borns_and_epsilon

    born = born - born.mean(axis=0)
    born, dielectric = symmetrize_borns_and_epsilon(born, dielectric, atoms)
    return Polar(np.asarray(born), np.asarray(dielectric), f"Born effective charges of the potential, {whence}"), ()


def nac_parameters(polar: Polar) -> Any:
    """Return the parameters of the non-analytic term as phonopy takes them."""
    return {"born": polar.born, "dielectric": polar.dielectric, "factor": units.coulomb_constant}


def _may_be_polar(primitive: Structure) -> bool:
    return len(np.unique(primitive.numbers)) > 1


def _born_charges(potential: Potential, primitive: Structure) -> tuple[Float[np.ndarray, "atoms 3 3"] | None, str]:
    """Compute Born effective charges (e) by the potential; None and the reason where it has none of crystals."""
    if BORN_CHARGES not in potential.provides:
        return None, "the potential has no charges"
    try:
        out = evaluate(potential, [primitive], (BORN_CHARGES.name,))
    except ValueError as error:
        # Charges that do not flow have no dipole moment in a crystal, and say so.
        return None, str(error)
    return np.asarray(out[BORN_CHARGES]), ""


def _dielectric(potential: Potential, primitive: Structure, given: float | None) -> tuple[Float[np.ndarray, "3 3"] | None, str]:
    """Compute the dielectric tensor 1 + 4 pi k alpha / V, with alpha the polarizability of a cell in the macroscopic field."""
    if given is not None:
        return given * np.eye(3), f"dielectric constant {given:g} as given"
    if POLARIZABILITY not in potential.provides:
        return None, ""
    alpha = np.asarray(evaluate(potential, [primitive], (POLARIZABILITY.name,))[POLARIZABILITY])[0]
    tensor = np.eye(3) + 4 * np.pi * units.coulomb_constant / primitive.volume * (alpha + alpha.T) / 2
    return tensor, "dielectric tensor from its polarizability"


def _from_file(path: str, atoms: Any) -> Polar:
    """Read phonopy's file BORN.

    Raises:
        ValueError: a file that phonopy does not understand.
        OSError: the file cannot be read.
    """
    from phonopy.exception import BORNFileParseError
    from phonopy.file_IO import parse_BORN

    try:
        found = parse_BORN(atoms, filename=path)
    except (BORNFileParseError, RuntimeError, IndexError, ValueError) as error:
        raise ValueError(
            f"{path}: {error}; a file BORN has a line of comment or of the factor, the nine numbers of the dielectric tensor, "
            "and the nine of each atom of the primitive cell that is different by symmetry"
        ) from error
    total = np.abs(np.asarray(found["born"]).sum(axis=0)).max()
    if total > CHARGED:
        raise ValueError(f"{path}: the Born effective charges add up to {total:.2g} e, not to zero: of other atoms?")
    return Polar(
        np.asarray(found["born"]), np.asarray(found["dielectric"]), f"Born effective charges and dielectric tensor of {path}"
    )
