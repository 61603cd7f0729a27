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
