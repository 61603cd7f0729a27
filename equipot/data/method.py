"""Methods of other programs: ASE calculators by name or of the user's own, with the charge and the spin of each structure.

Reading a potential never imports what its file names: only calculators of ``CALCULATORS`` are run without being asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot.config import suggest
from equipot.metadata import Method
from equipot.quantities import ENERGY, FORCES, HESSIAN, STRESS, Labels
from equipot.structure import Structure

__all__ = ["Runner", "runner_of"]


class Program(NamedTuple):
    """A calculator of a package that is known to be one."""

    target: str
    """``package.module:Class``."""
    distribution: str
    """Name of the package for pip."""
    defaults: Mapping[str, Any] = {}
    """Options that belong to the method and are recorded, where the user gives no others."""
    quiet: Mapping[str, Any] = {}
    """Options that change no result but by rounding."""
    ignores_electrons: bool = False
    """Whether the method does not depend on charge and spin, and is right for any."""


CALCULATORS: Mapping[str, Program] = {
    # Without the objects of the last calculation results do not depend on it.
    "tblite": Program("tblite.ase:TBLite", "tblite", {"method": "GFN2-xTB"}, {"verbosity": 0, "cache_api": False}),
    "dftd3": Program("dftd3.ase:DFTD3", "dftd3", ignores_electrons=True),
    "dftd4": Program("dftd4.ase:DFTD4", "dftd4"),
    "emt": Program("ase.calculators.emt:EMT", "ase"),
    "lj": Program("ase.calculators.lj:LennardJones", "ase", ignores_electrons=True),
}
"""Values of ``calculator`` in ``data.subtract``, besides ``package.module:Class``."""
OWN = ("charge", "multiplicity")
"""Parameters through which a calculator gets the total charge (e) and the multiplicity of each structure."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check the section ``data.subtract``, without importing anything.

    Raises:
        ValueError: no calculator, an unknown one, or options that no file can hold.
    """
    name = settings.get("calculator")
    if not isinstance(name, str) or (name not in CALCULATORS and ":" not in name):
        known = [*CALCULATORS, "package.module:Class"]
        raise ValueError(f"subtract: calculator is {name!r}; {suggest(str(name), known)}")
    for key in OWN:
        if key in settings:
            raise ValueError(f"subtract: leave {key} out: that of each frame is passed on to the calculator")
    try:
        json.dumps(dict(settings))
    except TypeError as error:
        raise ValueError(f"subtract: options are numbers, words, lists and mappings ({error})") from None


def named(settings: Mapping[str, Any]) -> Method:
    """Return the method that the section ``data.subtract`` describes, by its name and options alone: nothing is imported."""
    name = settings["calculator"]
    program = CALCULATORS.get(name)
    given = {key: value for key, value in settings.items() if key != "calculator"}
    return Method(name, json.dumps({**(program.defaults if program else {}), **given}, sort_keys=True, default=str))


def method_of(settings: Mapping[str, Any]) -> Method:
    """Return the method that the section ``data.subtract`` describes, with the version of its package.

    Raises:
        ValueError: the package is missing, or the calculator has no such option.
    """
    method = named(settings)
    name, options = method.calculator, method.keywords
    found = class_of(name, "data.subtract")
    check_options(name, found, options, "data.subtract")
    return replace(method, versions=versions_of(name, found, options))


def check_options(calculator: str, cls: Any, options: Mapping[str, Any], needed_by: str) -> None:
    """Check the options of a calculator of ``CALCULATORS`` by their names; those of others are not known.

    Raises:
        ValueError: an option that the calculator does not have.
    """
    for key in options if calculator in CALCULATORS else ():
        if key not in cls.default_parameters:
            raise ValueError(f"{needed_by}: {calculator} has no option {key!r}; {suggest(key, list(cls.default_parameters))}")


def class_of(calculator: str, needed_by: str) -> Any:
    """Import the class of a calculator.

    Args:
        needed_by: what needs it, for messages.

    Raises:
        ValueError: the package is not installed, or there is no such ASE calculator in it.
    """
    from ase.calculators.calculator import BaseCalculator

    program = CALCULATORS.get(calculator)
    module, _, name = (program.target if program else calculator).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = program.distribution if program else str(error.name)
        raise ValueError(
            f"{needed_by} needs {calculator}, but the package {package} is missing: pip install {package}"
        ) from None
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{needed_by}: cannot import {calculator}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, BaseCalculator)):
        raise ValueError(f"{needed_by}: {calculator} is no calculator of ASE")
    return found


def versions_of(calculator: str, cls: type, options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the packages of a calculator with their versions, and the files that its options name, see ``Method.versions``."""
    texts = [(key, value) for key, value in sorted(options.items()) if isinstance(value, str)]
    # A word such as pbe is not taken for a file of that name.
    named = [(key, Path(value)) for key, value in texts if os.path.isfile(value) and (Path(value).suffix or os.sep in value)]
    files = [(f"{key} {path}", hashlib.sha256(path.read_bytes()).hexdigest()) for key, path in named]
    return (*_packages_of(calculator, cls), *files)


def _packages_of(calculator: str, cls: type) -> tuple[tuple[str, str], ...]:
    program = CALCULATORS.get(calculator)
    top = cls.__module__.partition(".")[0]
    packages = [program.distribution] if program else importlib.metadata.packages_distributions().get(top, [])
    if packages:
        return tuple((name, importlib.metadata.version(name)) for name in dict.fromkeys(packages))
    file = inspect.getsourcefile(cls)
    return ((cls.__module__, hashlib.sha256(Path(file).read_bytes()).hexdigest()),) if file else ()


@dataclass(frozen=True, eq=False)
class Runner:
    """A method that is ready to be run."""

    method: Method
    calculator: Any
    """An ASE calculator."""
    passes: tuple[str, ...] = field(default=(), init=False)
    """Parameters among ``OWN`` that the calculator has."""

    def __post_init__(self) -> None:
        # Calculators that write input files have no list of parameters.
        known = getattr(type(self.calculator), "default_parameters", {})
        object.__setattr__(self, "passes", tuple(key for key in OWN if key in known))

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the properties that the calculator implements."""
        return tuple(self.calculator.implemented_properties)

    def check(self, structure: Structure) -> None:
        """Check, without running it, that the method applies to a structure.

        Raises:
            ValueError: a charge or spin that the method does not know of, or one that cannot be.
        """
        name = self.method.name
        program = CALCULATORS.get(self.method.calculator)
        if program is not None and program.ignores_electrons:
            return
        for key, value, what in (("charge", structure.charge, "charge"), ("multiplicity", structure.spin, "spin")):
            if value and key not in self.passes:
                raise ValueError(
                    f"{structure.name}: has {what} {value:g}, of which {name} knows nothing; leave it out, or choose a method "
                    f"with a parameter {key!r}"
                )
        if self.passes and structure.spin and (what := structure.impossible_electrons):
            raise ValueError(f"{structure.name}: {what}, and {name} cannot be run; correct charge and spin")

    def check_labels(self, structure: Structure) -> None:
        """Check, without running it, that the method gives what a structure has labels of.

        Raises:
            ValueError: labels of forces or stress that the method does not give, or of a Hessian, which is not subtracted.
        """
        if HESSIAN in structure.labels:
            raise ValueError(
                f"{structure.name}: has a label of the Hessian, from which that of {self.method.name} is not subtracted; train "
                "without, data.keys.others.hessian: none, or without data.subtract"
            )
        for row in (FORCES, STRESS):
            periodic = structure.pbc.any() or not row.needs_volume
            if row in structure.labels and (row.name not in self.properties or not periodic):
                raise ValueError(
                    f"{structure.name}: has a label of {row.name}, but {self.method.name} gives none to subtract"
                    f"{'' if periodic else ' where nothing repeats'}; train without, data.keys.{row.name}: none, or choose "
                    "another method"
                )

    def run(self, structure: Structure) -> Labels:
        """Compute energy (eV), and as far as the method has them forces (eV/Å) and stress (eV/Å^3) of a structure.

        Raises:
            ValueError: as ``check``, or the method failed; names the structure.
        """
        self.check(structure)
        atoms = structure.without_labels().to_ase()
        # ASE would give fixed atoms forces of zero.
        atoms.set_constraint()
        given = {"charge": structure.charge, "multiplicity": unpaired(structure) + 1}
        if self.passes:
            self.calculator.set(**{key: given[key] for key in self.passes})
            # ASE would return the results of the same atoms in another state.
            self.calculator.reset()
        atoms.calc = self.calculator
        periodic = bool(structure.pbc.any()) and structure.volume > 0
        try:
            # The energy that forces are the derivative of, where a smeared occupation makes two.
            found = {ENERGY: atoms.get_potential_energy(force_consistent="free_energy" in self.properties)}
            if "forces" in self.properties:
                found[FORCES] = atoms.get_forces()
            if "stress" in self.properties and periodic:
                found[STRESS] = atoms.get_stress(voigt=False)
        # Programs fail in ways of their own.
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{structure.name}: {self.method.name} failed ({said}); correct the structure or leave it out"
            ) from error
        for row, value in found.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{structure.name}: {self.method.name} gives {row.name} that are not finite; leave it out")
        return {row: row.checked(value, len(structure), structure.name) for row, value in found.items()}


def unpaired(structure: Structure) -> int:
    """Return the number of unpaired electrons to run a method with: that of the structure, else the lowest possible one."""
    return round(structure.spin) or round(float(structure.numbers.sum()) - structure.charge) % 2


def start(method: Method, needed_by: str) -> Runner:
    """Make the calculator of a method, importing its class.

    Raises:
        ValueError: the package is missing, or the calculator refuses its options.
    """
    found = class_of(method.calculator, needed_by)
    program = CALCULATORS.get(method.calculator)
    options = {**(program.quiet if program else {}), **method.keywords}
    check_options(method.calculator, found, options, needed_by)
    try:
        calculator = found(**options)
    except Exception as error:
        raise ValueError(f"{needed_by}: {method.name} cannot be made: {' '.join(str(error).split())}") from error
    _warn_of_versions(method, found)
    return Runner(method, calculator)


def _warn_of_versions(method: Method, cls: type) -> None:
    """Warn where packages or files are not those with which the method was subtracted."""
    now = versions_of(method.calculator, cls, method.keywords)
    if now != method.versions:
        told = lambda versions: ", ".join(f"{package} {version[:12]}" for package, version in versions) or "no known version"
        warnings.warn(f"{method.name} was subtracted by {told(method.versions)}; here is {told(now)}", stacklevel=3)


def runner_of(method: Method | None, given: Any = None) -> Runner | None:
    """Return the runner of the method that a potential is a correction to; None for a potential that is none.

    Args:
        given: calculator of that method, or ``package.module:Class`` of one that may be imported; None for a calculator of
            ``CALCULATORS``.

    Raises:
        ValueError: no calculator or another one than that of the method, or its package is missing.
    """
    if method is None:
        if given is not None:
            raise ValueError("a method is given, but the potential is no correction to one; leave it out")
        return None
    needed_by = f"the potential, a correction to {method.name},"
    if isinstance(given, str):
        if given != method.calculator:
            raise ValueError(f"the potential is a correction to {method.name}, not to {given}")
        return start(method, needed_by)
    if given is not None:
        return _adopted(method, given)
    if method.calculator not in CALCULATORS:
        raise ValueError(
            f"the potential is a correction to {method.name}, and code that a file names is not run without being asked for: "
            f"give the calculator, as in potential.calculator(method=...), or its name, as in --method {method.calculator}"
        )
    return start(method, needed_by)


def _adopted(method: Method, given: Any) -> Runner:
    """Check that a calculator is that of a method, by its class and by the parameters that it tells."""
    program = CALCULATORS.get(method.calculator)
    wanted = (program.target if program else method.calculator).rpartition(":")[2]
    if type(given).__name__ != wanted:
        raise ValueError(f"the potential is a correction to {method.name}, not to {type(given).__name__}")
    told = method.keywords
    if program is not None:
        # What a calculator that is known was not told, too, is as in one of the method.
        own = type(given)(**{**program.quiet, **told}).parameters
        told |= {key: value for key, value in own.items() if key not in (*program.quiet, *OWN)}
    _warn_of_versions(method, type(given))
    for key, value in told.items():
        held = given.parameters.get(key, value)
        if json.dumps(held, default=str) != json.dumps(value):
            raise ValueError(f"the potential is a correction to {method.name}, but the calculator has {key} {held}")
    return Runner(method, given)
