"""Metadata of a potential: elements with E0, levels of theory, origin and terms of use."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from equipot.electrons import CORRECT
from equipot.structure import Structure

__all__ = ["Head", "Metadata", "Method"]

DISPERSION = re.compile(
    r"(?<![A-Za-z0-9])(TS|(?i:D[234](BJ|M|MBJ|Z|zero)?|[wω]?B97X?D(3(BJ)?)?|MBD(@\w+)?|XDM|dDsC|r?VV10|vdW-?DF\w*|GFN\d?-xTB))"
    r"(?![A-Za-z0-9])|-(?i:vdW\w*|D|V|rV|3c|NL)(?![A-Za-z0-9])"
)
"""Names of dispersion in a level of theory, as in PBE-D3(BJ), wB97XD, PBE+MBD, optB88-vdW, wB97M-V, vdW-DF2 or r2SCAN-3c."""


def dispersion_of(level_of_theory: str) -> str | None:
    """Return the name of the dispersion that a level of theory includes, None where it names none."""
    found = DISPERSION.search(level_of_theory)
    return found.group(0).removeprefix("-") if found else None


@dataclasses.dataclass(frozen=True)
class Head:
    """One level of theory of a potential with several."""

    name: str
    atomic_energies: tuple[tuple[int, float], ...] = ()
    """E0 of each element at this level of theory: (Z, eV)."""
    level_of_theory: str = ""


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of another program, whose results were subtracted from the data that a potential was trained on."""

    calculator: str
    """Name of an ASE calculator among ``data.method.CALCULATORS``, or ``package.module:Class`` of any other."""
    options: str = "{}"
    """Keyword arguments of the calculator, as a JSON object: text, since metadata are hashable."""
    versions: tuple[tuple[str, str], ...] = ()
    """Package of the calculator and its version; for a class in no package, the SHA-256 of its source. Files that options name,
    with their SHA-256."""

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the calculator."""
        return json.loads(self.options)

    @property
    def dispersion(self) -> str | None:
        """Name of the dispersion that the method includes; None where its name and options say nothing of any."""
        return {"dftd3": "D3", "dftd4": "D4"}.get(self.calculator, dispersion_of(self.name))

    @property
    def name(self) -> str:
        """Name in messages, such as ``tblite (method GFN2-xTB)``."""
        options = ", ".join(f"{key} {value}" for key, value in self.keywords.items())
        return f"{self.calculator} ({options})" if options else self.calculator


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Elements, origin and terms of use of a potential. Hashable, since metadata are static under jit."""

    atomic_energies: tuple[tuple[int, float], ...] = ()
    """E0, the energy of the isolated atom, of each element that the potential knows: (Z, eV), in double precision."""
    level_of_theory: str = ""
    citation: str = ""
    licence: str = ""
    training_data: str = ""
    """SHA-256 of the training set."""
    version: str = ""
    """Version of equipot that made the potential."""
    dtype: str = ""
    """Precision for use where the file holds another one: ``load`` converts to this precision if none is asked for."""
    extra: tuple[tuple[str, str], ...] = ()
    charges: tuple[float, ...] = ()
    """Total charges (e) of the training frames, ascending; empty where they are not recorded, as of other programs' models."""
    spins: tuple[float, ...] = ()
    """Numbers of unpaired electrons of the training frames, ascending; empty where they are not recorded."""
    subtracted: Method | None = None
    """Method whose energies, forces and stresses belong to those of the term: the potential is a correction to the method, and
    E0 are those of the data less those of the method. Without the method, the potential refuses to be used."""
    heads: tuple[Head, ...] = ()
    """Levels of theory of a potential with several heads, in the order of the term's heads. E0 of the heads then count, and
    ``atomic_energies`` are zero."""

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers, ascending."""
        return tuple(sorted(z for z, _ in self.atomic_energies))

    def isolated_atom_energies(self, head: int | None) -> dict[int, float]:
        """Return E0 by atomic number (eV), of one head where there are several."""
        return dict(self.atomic_energies if head is None or not self.heads else self.heads[head].atomic_energies)

    def trained_on(self, charges: Iterable[float], spins: Iterable[float]) -> Metadata:
        """Add charges (e) and numbers of unpaired electrons to those that are recorded."""
        joined = lambda old, new: tuple(sorted({*old, *new}))
        return dataclasses.replace(self, charges=joined(self.charges, charges), spins=joined(self.spins, spins))

    def refusal(self, structure: Structure, needs: Sequence[str]) -> str:
        """Say why a potential does not apply to charge, spin and field of a structure, with a remedy; empty where it does.

        Charges that are recorded are the only ones that a potential knows, whether its term sees the charge or not: without,
        ions would silently get the energy of the neutral system. Spins count for a term that sees them.

        Args:
            needs: what the term sees, see ``Term.needs``.
        """
        if "field" not in needs and structure.field.any():
            shown = ", ".join(f"{x:g}" for x in structure.field)
            return f"is in an electric field of ({shown}) V/Å, which the potential does not see; take one with Electrostatics"
        if "charge" in needs and structure.charge > structure.numbers.sum():
            return f"has charge {structure.charge:g}, but only {structure.numbers.sum()} electrons; {CORRECT}"
        if "spin" in needs and (what := structure.impossible_electrons):
            return f"{what}; {CORRECT}"
        charge, spin, listed = structure.charge, structure.spin, lambda values: ", ".join(f"{value:g}" for value in values)
        remedy = "correct it, or train on frames that have it"
        if self.charges and charge not in self.charges:
            return f"has charge {charge:g}, but the potential was trained on {listed(self.charges)}; {remedy}"
        if "spin" in needs and self.spins and spin not in self.spins:
            return f"has {spin:g} unpaired electrons (spin), but the potential was trained on {listed(self.spins)}; {remedy}"
        return ""
