"""Prepare a run from a config: read the structure, check the start, and make state and neighbour list."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equipot.data.batch import centred
from equipot.data.method import runner_of
from equipot.data.read import read_one
from equipot.data.selection import split_index
from equipot.md.config import MDConfig
from equipot.md.state import Setup, State, at_rest, degrees_of_freedom, masses, thermal_momenta
from equipot.neighbors import ListSpec, neighbor_list, plan
from equipot.physics.external import with_method
from equipot.potential import Potential
from equipot.structure import Structure, symbols
from equipot.units import GPa, fs, kB

LONG_STEP = ((1.1, 1.0), (12.0, 3.0), (math.inf, 6.0))
"""For the lightest atom's mass up to the first number (amu), time steps beyond the second (fs) deserve a warning."""


def read_structure(source: str, frame: int, repeat: tuple[int, int, int], types: Sequence[str] = ()) -> Structure:
    """Read the starting structure (see ``read_one`` for ``source`` and ``types``) and repeat the cell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file or frame that cannot be read, or copies along a direction that does not repeat.
    """
    index = split_index(source)[1]
    if index != ":" and frame and index != str(frame):
        raise ValueError(f"{source} and frame {frame} are two frames; leave one of them out")
    structure = read_one(source, frame, types)
    open_ones = [axis for axis in range(3) if repeat[axis] > 1 and not structure.pbc[axis]]
    if open_ones:
        raise ValueError(f"repeat is {repeat}, but {source} does not repeat along {'abc'[open_ones[0]]}")
    return repeated(structure, repeat)


def repeated(structure: Structure, repeat: tuple[int, int, int]) -> Structure:
    """Make a supercell of ``repeat`` copies along each cell vector; charge and spin are multiplied by the number of copies."""
    if tuple(repeat) == (1, 1, 1):
        return structure
    images = np.array([[i, j, k] for i in range(repeat[0]) for j in range(repeat[1]) for k in range(repeat[2])])
    copies = lambda x, *axes: None if x is None else np.tile(x, (len(images), *axes))
    return structure.replace(
        numbers=copies(structure.numbers),
        masses=copies(structure.masses),
        momenta=copies(structure.momenta, 1),
        positions=(structure.positions + (images @ structure.cell)[:, None]).reshape(-1, 3),
        cell=structure.cell * np.array(repeat)[:, None],
        charge=structure.charge * len(images),
        spin=structure.spin * len(images),
    )


def with_conditions(config: MDConfig, structure: Structure) -> Structure:
    """Give the structure charge, unpaired electrons and electric field of the config, where it has any."""
    given = {"charge": config.charge, "spin": config.spin}
    stated: dict[str, Any] = {name: float(value) for name, value in given.items() if value is not None}
    return structure.replace(**stated | ({} if config.field is None else {"field": np.array(config.field)}))


def with_subtracted(config: MDConfig, potential: Potential, structure: Structure) -> tuple[Potential, float]:
    """Return a correction together with its method, and the energy (eV) that its energies lack; other potentials as they are.

    Raises:
        ValueError: a method that is missing, that does not apply to the structure, or without the stress that a pressure needs.
    """
    runner = runner_of(potential.metadata.subtracted, config.method)
    if runner is None:
        return potential, 0.0
    if config.ensemble.has_pressure and "stress" not in runner.properties:
        raise ValueError(f"{runner.method.name} gives no stress, which {type(config.ensemble).__name__} needs; choose NVT")
    return with_method(potential, runner, structure)


def check_start(config: MDConfig, potential: Potential, structure: Structure, say: Callable[[str], None]) -> None:
    """Check that a run can start, and warn through ``say`` of a long time step.

    Raises:
        ValueError: no atoms, a coordinate that is not finite, an unknown element, a charge or spin that the potential refuses,
            a cell without a volume, atoms at the same place, a pressure without a periodic cell, an invalid mass, missing
            velocities, or constrained atoms.
    """
    if not len(structure):
        raise ValueError(f"{structure.name} has no atoms")
    if structure.constraints:
        raise ValueError(
            f"{structure.name}: the atoms are constrained ({', '.join(structure.constraints)}), and a run here moves all of "
            "them; remove the constraints from the file (in ASE: atoms.set_constraint())"
        )
    potential.check([structure])
    if config.gate is not None:
        config.gate.check(potential, structure)
    if config.ensemble.has_pressure and not structure.pbc.all():
        open_ones = ", ".join("abc"[k] for k in range(3) if not structure.pbc[k])
        kind = type(config.ensemble).__name__
        raise ValueError(f"{structure.name} is open along {open_ones}: {kind} needs a periodic cell; choose an NVT ensemble")
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, max(config.min_distance, 1e-3))
    if len(edges.centers):
        i, j = int(edges.centers[0]), int(edges.neighbors[0])
        shift = edges.shifts[0] @ structure.cell
        distance = np.linalg.norm(structure.positions[j] + shift - structure.positions[i])
        raise ValueError(
            f"{structure.name}: atoms {i} and {j} ({symbols(structure.numbers[[i, j]].tolist())}) are {distance:.3f} Å apart, "
            f"less than min_distance ({config.min_distance} Å): correct the structure"
        )
    mass = masses(structure)
    if not (np.isfinite(mass).all() and (mass > 0).all()):
        k = int(np.flatnonzero(~(mass[:, 0] > 0) | ~np.isfinite(mass[:, 0]))[0])
        raise ValueError(f"{structure.name}: the mass of atom {k} is {mass[k, 0]} amu; correct the masses or leave them out")
    check_momenta(config, structure)
    still = config.initial_temperature_K == 0 if config.velocities == "draw" else not np.any(structure.momenta)
    if config.ensemble.needs_motion and still:
        kind = type(config.ensemble).__name__
        raise ValueError(f"{kind} rescales velocities and cannot start from rest; choose NVTLangevin, or start warmer")
    lightest = float(mass.min())
    limit = next(step for mass, step in LONG_STEP if lightest <= mass)
    if config.timestep_fs > limit:
        say(
            f"warning: timestep_fs is {config.timestep_fs}, long for atoms of {lightest:.1f} amu: above {limit} fs "
            "the energy of fast vibrations is not conserved"
        )


def check_momenta(config: MDConfig, structure: Structure) -> None:
    """Check the momenta of the structure if the config uses them.

    Raises:
        ValueError: missing momenta, or a momentum that is not finite.
    """
    if config.velocities == "draw":
        return
    if structure.momenta is None:
        raise ValueError(
            f"velocities is file, but {structure.name} has no momenta; give a file that has them (extended XYZ with a "
            "column of momenta, as trajectories here are), or leave velocities out"
        )
    if not np.isfinite(structure.momenta).all():
        k = int(np.flatnonzero(~np.isfinite(structure.momenta).all(axis=1))[0])
        raise ValueError(f"{structure.name}: the momentum of atom {k} is not finite; correct the file")


def explain_start(config: MDConfig, structure: Structure, say: Callable[[str], None]) -> None:
    """Report through ``say`` the use of unusual masses and of momenta in the structure."""
    mass, momentum = masses(structure), structure.momenta
    if not np.allclose(mass, masses(structure.replace(masses=None)), rtol=0.01):
        say(f"{structure.name} has masses other than the standard ones, {mass.min():g} to {mass.max():g} amu; they are used")
    if momentum is None or not momentum.any():
        return
    if config.velocities == "draw":
        say(f"{structure.name} has momenta; they are not used, velocities are drawn anew (velocities: file would take them)")
    elif config.ensemble.conserves_momentum and len(structure) > 1:
        energy = lambda p: (p**2 / mass).sum()
        whole = 1 - energy(at_rest(structure, momentum)) / energy(momentum)
        if whole > 1e-3:
            say(
                f"warning: {100 * whole:.2g} % of the kinetic energy in {structure.name} is motion of the system as a whole, "
                "which the temperature takes for heat"
            )


def start_setup(config: MDConfig, structure: Structure, dtype: np.dtype) -> Setup:
    """Make the fixed quantities of the run, in the units of ``md.state``."""
    a, b, c = structure.pbc.tolist()
    x, y, z = structure.field.tolist()
    return Setup(
        dt=config.timestep_fs * fs,
        kT=kB * config.temperature_K,
        pressure=config.pressure_GPa * GPa,
        dof=degrees_of_freedom(structure, config.ensemble.conserves_momentum),
        mass=masses(structure).astype(dtype),
        numbers=structure.numbers,
        pbc=(a, b, c),
        charge=structure.charge,
        spin=structure.spin,
        field=(x, y, z),
    )


def start_state(config: MDConfig, structure: Structure, dtype: np.dtype) -> State:
    """Make the initial state: positions about their mean, momenta from the structure or drawn; forces and energy are zero."""
    temperature = config.temperature_K if config.initial_temperature_K is None else config.initial_temperature_K
    drawn = config.velocities == "draw"
    momentum = thermal_momenta(structure, temperature, config.seed) if drawn else structure.momenta
    assert momentum is not None, "check_momenta comes first"
    real = lambda x: jnp.asarray(x, dtype)
    return State(
        position=real(centred(structure)),
        momentum=real(momentum),
        force=real(np.zeros_like(momentum)),
        interaction=real(0.0),
        virial=real(np.zeros((3, 3))),
        cell=real(structure.cell if structure.pbc.any() else np.zeros((3, 3))),
        images=jnp.zeros(momentum.shape, jnp.int32),
        key=jax.random.PRNGKey(config.seed),
        heat=real(0.0),
        extra=(),
    )


def start_list(config: MDConfig, structure: Structure, potential: Potential) -> ListSpec:
    """Plan the sizes of the neighbour list, with more spare room if the cell changes."""
    slack = 1.4 if config.ensemble.has_pressure else 1.25
    geometry, term = (structure.positions, structure.cell, structure.pbc), potential.term
    return plan(*geometry, potential.cutoff, config.skin, slack, term.longest_wave, term.inner_cutoffs)
