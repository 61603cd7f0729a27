"""What is published of the crystals, each number with its method and source.

A number without a source that could be looked at again is not here: where a cell of a table is empty, none was found.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.materials import solids

LABELS = "PBE (VASP), strained cells in the training data of mlearn, Zuo et al., J. Phys. Chem. A 124, 731 (2020)"
CASTEP = "PW91 (CASTEP), in github.com/libAtoms/silicon-testing-framework, of Bartók et al., Phys. Rev. X 8, 041048 (2018)"
CASTEP_CURVES = CASTEP + "; fits by Birch and Murnaghan to the volumes there"
PACE = "PBE, table 1 of Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021)"
UNTRACED = "PBE, passed on without its source"
MCSKIMIN = "ultrasound, 298 K, McSkimin and Andreatch, J. Appl. Phys. 35, 2161 (1964)"
OVERTON = "ultrasound, 4 K, Overton and Gaffney, Phys. Rev. 98, 969 (1955)"
KAMM = "ultrasound, 0 K, Kamm and Alers, J. Appl. Phys. 35, 327 (1964)"
KITTEL = "room temperature, tables of Kittel, Introduction to Solid State Physics"
SINOGEIKIN = "Brillouin scattering, 300 K, Sinogeikin and Bass, Phys. Earth Planet. Inter. 120, 43 (2000)"
LATTICE = "X-rays, room temperature, common tables"
NILSSON = "neutrons, Nilsson and Nelin, Phys. Rev. B 6, 3777 (1972)"
STEDMAN = "neutrons, 80 K, X point, Stedman and Nilsson, Phys. Rev. 145, 492 (1966)"
JASPERSE = "infrared, 295 K, Jasperse et al., Phys. Rev. 146, 526 (1966)"
EHRHART = "Ehrhart in Landolt-Börnstein, New Series III/25 (1991)"
DANNEFAER = "positrons, Dannefaer, Mascher and Kerr, Phys. Rev. Lett. 56, 2195 (1986)"
NBS = "enthalpy at 0 K, Wagman et al., NBS tables, J. Phys. Chem. Ref. Data 11, Suppl. 2 (1982)"
RANADE = "calorimetry, Ranade et al., Proc. Natl. Acad. Sci. 99, 6476 (2002)"

UNITS = {
    "a": "Å", "C11": "GPa", "C12": "GPa", "C44": "GPa", "C44 clamped": "GPa", "B": "GPa", "optical at Gamma": "THz",
    "highest": "THz", "vacancy formation": "eV", "vacancy migration": "eV", "energy": "meV", "volume": "Å^3",
}  # fmt: skip
"""Unit of each quantity; energies of polymorphs are above that of the reference polymorph, per atom or per TiO2."""


class Reference(NamedTuple):
    """One published number."""

    method: str
    """DFT, or experiment."""
    value: float
    """In the unit of the quantity."""
    source: str


def dft(value: float, source: str) -> Reference:
    """A number of density-functional theory."""
    return Reference("DFT", value, source)


def measured(value: float, source: str) -> Reference:
    """A number of an experiment."""
    return Reference("experiment", value, source)


def elastic(c11: Reference, c12: Reference, c44: Reference) -> dict[str, tuple[Reference, ...]]:
    """Return three elastic constants by name."""
    return {"C11": (c11,), "C12": (c12,), "C44": (c44,)}


def measured_constants(c11: float, c12: float, c44: float, source: str) -> dict[str, tuple[Reference, ...]]:
    """Return three measured elastic constants (GPa)."""
    return elastic(measured(c11, source), measured(c12, source), measured(c44, source))


def calculated_constants(c11: float, c12: float, c44: float, source: str) -> dict[str, tuple[Reference, ...]]:
    """Return three elastic constants (GPa) of density-functional theory."""
    return elastic(dft(c11, source), dft(c12, source), dft(c44, source))


PUBLISHED: tuple[tuple[str, dict[str, tuple[Reference, ...]]], ...] = (
    ("Si", calculated_constants(153.3, 56.3, 72.2, CASTEP)),
    ("Si", measured_constants(165.8, 63.9, 79.6, MCSKIMIN)),
    ("Si", {
        "C44 clamped": (dft(99.1, LABELS),),
        "a": (measured(5.431, LATTICE),),
        "optical at Gamma": (dft(15.08, CASTEP), measured(15.53, NILSSON)),
        "vacancy formation": (dft(3.67, CASTEP), measured(3.6, DANNEFAER)),
    }),
    ("Cu", calculated_constants(177, 132, 82, PACE)),
    ("Cu", measured_constants(176.2, 124.9, 81.8, OVERTON)),
    ("Cu", {
        "a": (measured(3.615, LATTICE),),
        "vacancy formation": (dft(1.07, PACE), measured(1.28, EHRHART)),
        "vacancy migration": (dft(0.74, PACE), measured(0.70, EHRHART)),
    }),
    ("Al", calculated_constants(104, 73, 32, UNTRACED)),
    ("Al", measured_constants(114.3, 61.9, 31.6, KAMM)),
    ("Al", {
        "a": (measured(4.050, LATTICE),),
        "highest": (measured(9.69, STEDMAN),),
        "vacancy formation": (measured(0.67, EHRHART),),
        "vacancy migration": (measured(0.61, EHRHART),),
    }),
    ("NaCl", measured_constants(48.7, 12.4, 12.6, KITTEL)),
    ("NaCl", {
        "a": (measured(5.640, LATTICE),),
        "optical at Gamma": (dft(4.62, UNTRACED), measured(4.93, KITTEL)),
    }),
    ("MgO", measured_constants(297.9, 95.8, 154.4, SINOGEIKIN)),
    ("MgO", {
        "a": (measured(4.212, LATTICE),),
        "optical at Gamma": (dft(11.20, UNTRACED), measured(12.02, JASPERSE)),
    }),
    ("Si lonsdaleite", {"energy": (dft(11.5, CASTEP_CURVES),), "volume": (dft(20.35, CASTEP_CURVES),)}),
    ("Si bc8", {"energy": (dft(163.0, CASTEP_CURVES),), "volume": (dft(18.43, CASTEP_CURVES),)}),
    ("Si beta-tin", {"energy": (dft(321.6, CASTEP_CURVES),), "volume": (dft(15.39, CASTEP_CURVES),)}),
    ("Si simple hexagonal", {"energy": (dft(343.9, CASTEP_CURVES),), "volume": (dft(15.11, CASTEP_CURVES),)}),
    ("Si hcp", {"energy": (dft(561.3, CASTEP_CURVES),), "volume": (dft(14.50, CASTEP_CURVES),)}),
    ("Si bcc", {"energy": (dft(572.2, CASTEP_CURVES),), "volume": (dft(14.73, CASTEP_CURVES),)}),
    ("Si fcc", {"energy": (dft(589.7, CASTEP_CURVES),), "volume": (dft(14.58, CASTEP_CURVES),)}),
    ("Si diamond", {"volume": (dft(20.36, CASTEP_CURVES),)}),
    ("C graphite", {"energy": (measured(-25.1, NBS),)}),
    ("TiO2 anatase", {"energy": (measured(27.1, RANADE),)}),
    ("TiO2 brookite", {"energy": (measured(7.4, RANADE),)}),
)  # fmt: skip
"""References by subject and quantity; a subject may stand in several lines."""


def references(subject: str, quantity: str) -> tuple[Reference, ...]:
    """Return what is published of a quantity of a crystal or polymorph; empty where nothing is known."""
    found = [r for name, known in PUBLISHED if name == subject for r in known.get(quantity, ())]
    if quantity in ("a", "B") and subject in (own := solids()):
        solid = own[subject]
        found.insert(0, dft(solid.constant if quantity == "a" else solid.modulus, solid.source))
    return tuple(found)
