import ase.units
import pytest

from equipot import units

ASE = {
    "kB": ase.units.kB,
    "bohr": ase.units.Bohr,
    "hartree": ase.units.Hartree,
    "rydberg": ase.units.Rydberg,
    "kJ_per_mol": ase.units.kJ / ase.units.mol,
    "kcal_per_mol": ase.units.kcal / ase.units.mol,
    "GPa": ase.units.GPa,
    "kbar": 0.1 * ase.units.GPa,
    "bar": ase.units.bar,
    "debye": ase.units.Debye,
    "fs": ase.units.fs,
}


@pytest.mark.parametrize("name", ASE)
def test_constants_are_those_of_ase(name):
    assert getattr(units, name) == pytest.approx(ASE[name], rel=1e-12)


def test_composed_units():
    assert units.force("Hartree/bohr") == pytest.approx(51.422067, rel=1e-6)
    assert units.force("kcal/mol/Å") == pytest.approx(0.0433641, rel=1e-6)
    assert 1 / units.stress("GPa") == pytest.approx(160.21766, rel=1e-7)
    assert units.stress("Hartree/bohr^3") == pytest.approx(units.hartree / units.bohr**3)


@pytest.mark.parametrize(
    ("text", "dimension", "size"),
    [
        ("Debye", (0, 1, 1), 0.20819434),
        ("D", (0, 1, 1), 0.20819434),
        ("e Å", (0, 1, 1), 1.0),
        ("e*Ang", (0, 1, 1), 1.0),
        ("e a0", (0, 1, 1), 0.52917721),
        ("a.u.", (0, 1, 1), 0.52917721),
        ("e", (0, 0, 1), 1.0),
        ("V/Å", (1, -1, -1), 1.0),
        ("kcal/mol/Ang^2", (1, -2, 0), 0.0433641),
        ("Hartree/bohr**2", (1, -2, 0), 27.2113845 / 0.52917721**2),
        ("a0 a0 a0", (0, 3, 0), 0.52917721**3),
        ("1/nm", (0, -1, 0), 0.1),
        ("e·Å", (0, 1, 1), 1.0),
        ("kcal/(mol*Å**2)", (1, -2, 0), 0.0433641),
        ("kcal mol^-1 Å⁻²", (1, -2, 0), 0.0433641),
        ("Hartree/(bohr bohr)", (1, -2, 0), 27.2113845 / 0.52917721**2),
    ],
)
def test_products_of_units(text, dimension, size):
    assert units.parsed(text, dimension) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize("text", ["", "e", "Debye Å", "furlong", "e/Å", "e (Å", "Debye^2", "e au", "C m", "MeV"])
def test_units_that_are_no_dipole(text):
    assert units.parsed(text, (0, 1, 1)) is None


@pytest.mark.parametrize(
    ("look_up", "name", "remedy"),
    [
        (units.energy, "hartre", "did you mean Hartree"),
        (units.length, "furlong", "choose from Å"),
        (units.force, "eV", "energy/length"),
        (units.stress, "eV/Å", "energy/length^3"),
    ],
)
def test_unknown_units_are_named_with_a_remedy(look_up, name, remedy):
    with pytest.raises(ValueError, match=name) as error:
        look_up(name)
    assert remedy in str(error.value)
