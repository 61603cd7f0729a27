"""Unit conversions of CODATA 2014, which ASE uses by default. Inside the package units are eV, Å, amu and e.

A constant named after a unit is one such unit in the package's units: multiply values by the constant on input, divide on
output. The unit of time is Å sqrt(amu/eV); users see fs.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata

__all__ = [
    "GPa", "THz", "amu", "angstrom", "bar", "bohr", "coulomb_constant", "debye", "eV", "fs", "hartree", "kB", "kJ_per_mol",
    "kbar", "kcal_per_mol", "km_per_mol", "pascal", "per_cm", "planck", "rydberg",
]  # fmt: skip

_E = 1.6021766208e-19
"""Elementary charge, C."""
_AMU = 1.660539040e-27
"""kg."""
_AVOGADRO = 6.022140857e23
_BOLTZMANN = 1.38064852e-23
"""J/K."""
_PLANCK = 6.626070040e-34
"""J s."""
_ELECTRON_MASS = 9.10938356e-31
"""kg."""
_LIGHT = 299792458.0
"""m/s."""
_MU0 = 4.0e-7 * math.pi
_EPS0 = 1.0 / (_MU0 * _LIGHT**2)
_HBAR = _PLANCK / (2 * math.pi)

eV = 1.0
angstrom = 1.0
amu = 1.0
kB = _BOLTZMANN / _E
"""eV/K."""
bohr = 1e10 * 4 * math.pi * _EPS0 * _HBAR**2 / (_ELECTRON_MASS * _E**2)
"""Å."""
hartree = _ELECTRON_MASS * _E**3 / (16 * math.pi**2 * _EPS0**2 * _HBAR**2)
"""eV."""
rydberg = hartree / 2
"""eV."""
kJ_per_mol = 1000.0 / _E / _AVOGADRO
"""eV."""
kcal_per_mol = 4.184 * kJ_per_mol
"""eV."""
GPa = 1e9 / (1e30 * _E)
"""eV/Å^3; 1 eV/Å^3 is 160.2 GPa."""
kbar = 0.1 * GPa
"""eV/Å^3."""
bar = 1e-3 * kbar
"""eV/Å^3."""
debye = 1e-11 / _E / _LIGHT
"""e Å; about 0.2082."""
fs = 1e-5 * math.sqrt(_E / _AMU)
"""Å sqrt(amu/eV); about 0.0982."""
THz = 1e-3 / fs
"""sqrt(eV/amu)/Å, a frequency (not an angular one): 1e12 periods in a second."""
planck = _PLANCK / _E * 1e15 * fs
"""eV Å sqrt(amu/eV): the energy h nu of a frequency nu in the package's unit."""
per_cm = 100 * _PLANCK * _LIGHT / _E
"""eV, the energy of a wavenumber of 1/cm; about 0.124 meV. 1 THz is 33.36/cm."""
pascal = 1e-9 * GPa
"""eV/Å^3."""
joule = 1 / _E
"""eV."""
mol = _AVOGADRO
"""Entities in a mole."""
light = 1e-5 * _LIGHT
"""Speed of light, Å/fs."""
g_per_cm3 = 1e-27 / _AMU
"""amu/Å^3; about 0.602."""
W_per_mK = 1e-25 * joule
"""eV/(fs Å K), a thermal conductivity."""
mPa_s = 1e12 * pascal
"""eV fs/Å^3, a viscosity."""
coulomb_constant = hartree * bohr
"""eV Å/e^2; about 14.4."""
km_per_mol = 12 * _EPS0 * _LIGHT**2 * _AMU * 1e3 / (_AVOGADRO * _E**2)
"""e^2/amu, the squared derivative of a dipole moment by a normal coordinate that absorbs 1 km/mol, by the factor
N_A / (12 eps_0 c^2); about 1/974.9."""

ENERGY = {
    "eV": eV,
    "meV": 1e-3,
    "Hartree": hartree,
    "Ha": hartree,
    "Ry": rydberg,
    "kcal/mol": kcal_per_mol,
    "kJ/mol": kJ_per_mol,
}
"""Energy units by name, in eV."""
LENGTH = {"Å": angstrom, "Angstrom": angstrom, "A": angstrom, "bohr": bohr, "nm": 10.0, "pm": 0.01}
"""Length units by name, in Å."""
PRESSURE = {"GPa": GPa, "kbar": kbar, "bar": bar, "Pa": 1e-9 * GPa, "MPa": 1e-3 * GPa, "Mbar": 100 * GPa, "atm": 1.01325 * bar}
"""Pressure units by name, in eV/Å^3."""


_SPELLINGS = {
    "energy": {"ev": "eV", "electronvolt": "eV", "electronvolts": "eV", "hartree": "Hartree", "hartrees": "Hartree",
               "ha": "Hartree", "eh": "Hartree", "a.u.": "Hartree", "au": "Hartree", "ry": "Ry", "rydberg": "Ry",
               "rydbergs": "Ry", "kcal/mol": "kcal/mol", "kcalmol": "kcal/mol", "kj/mol": "kJ/mol", "kjmol": "kJ/mol"},
    "length": {"å": "Å", "ang": "Å", "angstrom": "Å", "angstroms": "Å", "ångström": "Å", "ångströms": "Å", "angström": "Å",
               "angstroem": "Å", "ångstrom": "Å", "a": "Å", "bohr": "bohr", "bohrs": "bohr", "a0": "bohr",
               "a.u.": "bohr", "au": "bohr", "nm": "nm", "nanometer": "nm", "pm": "pm"},
    "force": {"a.u.": "Hartree/bohr", "au": "Hartree/bohr"},
    "stress": {name.lower(): name for name in PRESSURE if name[0] != "M"} | dict.fromkeys(("kb", "kilobar", "kilobars"), "kbar")
              | dict.fromkeys(("a.u.", "au"), "Hartree/bohr^3"),
}  # fmt: skip
"""Spellings of units in files, in lower case, for units whose capitals do not matter (meV is not MeV, nor mPa MPa).

VASP calls the kilobar ``kB``."""


def spelled(text: str, what: str) -> str | None:
    """Convert a unit in a file's spelling to the name that ``energy``, ``length``, ``force`` or ``stress`` takes.

    Args:
        text: unit as written, such as ``hartree``, ``kcal/mol/Ang``, ``kcal/(mol*Å)``, ``Ha Bohr^-1`` or ``eV/Å³``.
        what: dimension: energy, length, force or stress.

    Returns:
        The name, or None for an unknown unit.
    """
    text = _plain(text)
    if what == "stress":
        text = re.sub(r"(\^|\*\*)?3$", "", text)
    exact = {"energy": ENERGY, "length": LENGTH, "stress": PRESSURE}.get(what, {})
    if text in exact or text.lower() in _SPELLINGS[what]:
        return text if text in exact else _SPELLINGS[what][text.lower()]
    above, _, below = text.rpartition("/")
    if what in ("energy", "length") or not above:
        return None
    top, bottom = spelled(above, "energy"), spelled(below, "length")
    return None if top is None or bottom is None else f"{top}/{bottom}" + ("^3" if what == "stress" else "")


_BETWEEN = r"(?:\s*(?<!\*)[*·](?!\*)\s*|\s+)"
"""Sign of a product."""
_NEGATIVE = re.compile(rf"{_BETWEEN}(a0|[^\W\d_]+)(?:\^|\*\*)?-(\d)")


def _plain(text: str) -> str:
    """Return a unit with slashes instead of brackets and negative powers: ``kcal/(mol*A)`` and ``kcal mol⁻¹ A⁻¹`` become
    ``kcal/mol/A``."""
    text = unicodedata.normalize("NFKC", text.strip()).replace("−", "-").replace("⋅", "·")
    text = re.sub(r"\A\(([^()]*)\)(?=\s*/)", r"\1", text)
    text = re.sub(r"/\s*\(([^()/]*)\)", lambda match: "/" + re.sub(_BETWEEN, "/", match[1].strip()), text)
    text = _NEGATIVE.sub(lambda match: f"/{match[1]}" + ("" if match[2] == "1" else f"^{match[2]}"), text)
    return re.sub(r"\s*/\s*", "/", text)


_FACTOR = re.compile(r"\s*([*·/]?)\s*(kcal/mol|kj/mol|a0|[^\W\d_]+)(?:(?:\^|\*\*)?([-+]?\d+))?", re.IGNORECASE)


def parsed(text: str, dimension: tuple[int, int, int]) -> float | None:
    """Return the size of a unit in the package's units.

    Args:
        text: product of units of energy, length and charge, such as ``Debye``, ``e*bohr``, ``e Å`` or ``kcal/mol/Å^2``; a slash
            divides by the one unit, or the units in brackets, after it. ``a.u.`` is the atomic unit of the dimension.
        dimension: powers of energy, length and charge that the unit must have.

    Returns:
        The size, or None for an unknown unit or one of another dimension.
    """
    text = _plain(text)
    if text.lower() in ("a.u.", "au"):
        return hartree ** dimension[0] * bohr ** dimension[1]
    size, powers, end = 1.0, [0, 0, 0], 1 if text[:2] == "1/" else 0
    while end < len(text):
        match = _FACTOR.match(text, end)
        known = _factor(match[2]) if match else None
        if match is None or known is None:
            return None
        power = int(match[3] or 1) * (-1 if match[1] == "/" else 1)
        size *= known[0] ** power
        powers = [p + power * q for p, q in zip(powers, known[1], strict=True)]
        end = match.end()
    return size if text and tuple(powers) == dimension else None


def _factor(name: str) -> tuple[float, tuple[int, int, int]] | None:
    """Return the size and the powers of energy, length and charge of a single unit; None for an unknown one."""
    if name in ("e", "V"):
        return 1.0, (0, 0, 1) if name == "e" else (1, 0, -1)
    if name.lower() in ("debye", "debyes") or name == "D":
        return debye, (0, 1, 1)
    if found := spelled(name, "energy"):
        return ENERGY[found], (1, 0, 0)
    found = spelled(name, "length")
    return (LENGTH[found], (0, 1, 0)) if found else None


def energy(name: str) -> float:
    """Return one ``name`` in eV.

    Raises:
        ValueError: an unknown name, with the nearest known one.
    """
    return _look_up(name, ENERGY, "energy")


def length(name: str) -> float:
    """Return one ``name`` in Å.

    Raises:
        ValueError: an unknown name, with the nearest known one.
    """
    return _look_up(name, LENGTH, "length")


def force(name: str) -> float:
    """Return one ``name``, such as ``Hartree/bohr``, in eV/Å.

    Raises:
        ValueError: an unknown name, with what a force unit looks like.
    """
    above, _, below = name.rpartition("/")
    if above not in ENERGY or below not in LENGTH:
        raise ValueError(f"unknown force unit {name!r}; write energy/length, such as eV/Å, Hartree/bohr or kcal/mol/Å")
    return ENERGY[above] / LENGTH[below]


def stress(name: str) -> float:
    """Return one ``name``, a pressure or an energy per volume such as ``eV/Å^3``, in eV/Å^3.

    Raises:
        ValueError: an unknown name, with the choices.
    """
    above, _, below = name.rpartition("/")
    if below.endswith("^3") and above in ENERGY and below[:-2] in LENGTH:
        return ENERGY[above] / LENGTH[below[:-2]] ** 3
    if name in PRESSURE:
        return PRESSURE[name]
    known = ", ".join(PRESSURE)
    raise ValueError(f"unknown stress unit {name!r}; choose from {known}, or write energy/length^3, such as eV/Å^3")


def _look_up(name: str, table: dict[str, float], what: str) -> float:
    lower = {key.lower(): key for key in table}
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name.lower(), lower, 1, 0.5)
    remedy = f"did you mean {lower[close[0]]}?" if close else f"choose from {', '.join(table)}"
    raise ValueError(f"unknown {what} unit {name!r}; {remedy}")
