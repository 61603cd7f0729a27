"""The measurements: functions from plain numbers and names to a dictionary, so that each can run in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.measure import compiled, device, in_turn, memory, timing
from benchmarks.peers.systems import KINDS, make
from equipot import config, load, md, save
from equipot.data.batch import pad
from equipot.data.config import DataConfig
from equipot.data.loader import plan_training, prepare
from equipot.data.read import load_data
from equipot.graph import Graph
from equipot.md.driver import Simulation
from equipot.md.progress import Progress
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.neighbors import allocate, plan, to_graph
from equipot.nn.interaction import Plain
from equipot.potential import Potential, evaluate
from equipot.structure import Structure
from equipot.term import Term
from equipot.training.config import TrainingConfig
from equipot.training.descent import Descent
from equipot.training.stacks import Stacks
from equipot.training.step import first_state, make_train_step, mesh_of, place, replicate

SMALL = MACE(cutoff=5.0, channels=32, hidden_l=1, l_max=3, correlation=2)
"""Of ``scaling`` and ``md``."""
MODELS: dict[str, Term] = {
    "MACE": MACE(cutoff=5.0, channels=64, hidden_l=1, l_max=3, correlation=3),
    "NequIP": NequIP(cutoff=5.0, channels=32, l_max=2, layers=4),
    "W1": MACE(cutoff=5.0, channels=128, hidden_l=1, l_max=3, correlation=3, first=Plain()),
}
"""Of ``speed``."""
SKIN = 1.0
"""Å, of the list of ``md``."""
LATTICE, RATTLE = 5.43, 0.05
"""Å: of diamond silicon, and the standard deviation of its atoms' displacements."""


def silicon(atoms: int) -> Structure:
    """Diamond silicon with displaced atoms, a cube of cubic cells.

    Raises:
        ValueError: no cube has this number of atoms.
    """
    from ase.build import bulk

    copies = round((atoms / 8) ** (1 / 3))
    if 8 * copies**3 != atoms:
        raise ValueError(f"{atoms} atoms: cubes of silicon have {', '.join(str(8 * k**3) for k in range(1, 9))}, ... atoms")
    crystal = bulk("Si", "diamond", a=LATTICE, cubic=True).repeat(copies)
    crystal.positions += np.random.default_rng(0).normal(0, RATTLE, crystal.positions.shape)
    return Structure.from_ase(crystal, source=f"silicon, {atoms} atoms")


def untrained(term: Term, structures: Sequence[Structure], scale: float = 1.0) -> tuple[Potential, Graph]:
    """A fresh potential for these structures, and the graph of all of them on the device."""
    graph = pad(structures, term.cutoff)
    elements = tuple(sorted({int(z) for s in structures for z in s.numbers}))
    metadata = Metadata(atomic_energies=tuple((z, 0.0) for z in elements))
    mean = float(graph.slot_mask.sum() / graph.node_mask.sum())
    term = term.clone(elements=elements)
    potential = fresh(term, graph, jax.random.key(0), metadata, scale=scale, avg_num_neighbors=mean)
    return potential, jax.device_put(graph)


def energy_forces(potential: Potential, graph: Graph) -> Any:
    return evaluate(potential, graph, ("energy", "forces"))


def about(potential: Potential, graph: Graph) -> dict[str, Any]:
    """What was measured."""
    return {
        "device": device(),
        "model": config.dump(potential.term),
        "atoms": int(graph.node_mask.sum()),
        "edges": int(graph.slot_mask.sum()),
        "slots": graph.num_slots,
    }


def scaling(atoms: int, seconds: float, batch: int = 1, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Energy and forces of ``batch`` crystals of silicon by ``SMALL`` with ``changes``: time and memory."""
    potential, graph = untrained(SMALL.clone(**(changes or {})), [silicon(atoms)] * batch)
    call, facts = compiled(energy_forces, potential, graph)
    out = about(potential, graph) | facts | timing(call, seconds) | memory()
    atoms *= batch
    out |= {f"{name}_per_atom": out[name] / atoms for name in ("cpu_ms", "cpu_ms_min", "wall_ms", "wall_ms_min")}
    if "temp_bytes" in out:
        out["temp_bytes_per_atom"] = out["temp_bytes"] / atoms
    return out


def saved(model: str, system: str, frames: int, file: str) -> dict[str, Any]:
    """Writes a fresh potential, so that what evaluates it starts as a user's program does: from a file."""
    save(untrained(MODELS[model], structures_of(system, frames, MODELS[model].cutoff))[0], file)
    return {}


def inference(model: str, system: str, frames: int, file: str, seconds: float) -> dict[str, Any]:
    """Energy, forces and, where there is a cell, stress by the potential in a file (``saved``)."""
    potential = load(file)
    structures = structures_of(system, frames, potential.cutoff)
    graph = jax.device_put(pad(structures, potential.cutoff))
    want = ("energy", "forces", "stress") if structures[0].pbc.all() else ("energy", "forces")
    call, facts = compiled(lambda p, g: evaluate(p, g, want), potential, graph)
    return about(potential, graph) | {"frames": frames} | facts | timing(call, seconds) | memory()


def structures_of(system: str, frames: int, cutoff: float) -> list[Structure]:
    """Frames of a bundled set, or a system of the work items."""
    if system.rstrip("0123456789") in KINDS:
        return [Structure.from_ase(atoms) for atoms in make(system)]
    return bundled_frames(system, frames, cutoff)[0]


def training(model: str, system: str, frames: int, seconds: float) -> dict[str, Any]:
    """One training step, loss, gradient and optimiser, on a batch of frames of a bundled set."""
    term = MODELS[model]
    structures, energies = bundled_frames(system, frames, term.cutoff)
    potential, graph = untrained(term, structures)
    call = train_step(potential, structures, energies)
    began = time.perf_counter()
    jax.block_until_ready(call())
    facts = {"frames": frames, "compile_s": time.perf_counter() - began}
    return about(potential, graph) | facts | timing(call, seconds) | memory()


def hessian_training(model: str, system: str, frames: int, seconds: float) -> dict[str, Any]:
    """A training step with a product of each frame's Hessian beside energies and forces, and one without, in turn.

    Labels of Hessians are random: no time depends on them.
    """
    term, rng = MODELS[model], np.random.default_rng(0)
    structures, energies = bundled_frames(system, frames, term.cutoff)
    potential, graph = untrained(term, structures)
    matrices = [rng.normal(size=(len(s), 3, len(s), 3)) for s in structures]
    labelled = [s.replace(hessian=h + h.transpose(2, 3, 0, 1)) for s, h in zip(structures, matrices, strict=True)]
    calls, compile_s = dict[str, tuple[Callable[[], Any], int]](), dict[str, float]()
    for what, chosen in (("without", structures), ("with", labelled)):
        calls[what] = (train_step(potential, chosen, energies), 1)
        began = time.perf_counter()
        jax.block_until_ready(calls[what][0]())
        compile_s[what] = time.perf_counter() - began
    times = {what: found | {"compile_s": compile_s[what]} for what, found in in_turn(calls, seconds).items()}
    return about(potential, graph) | {"frames": frames} | times | memory()


def train_step(potential: Potential, structures: list[Structure], atomic_energies: dict[int, float]) -> Callable[[], Any]:
    """The step of ``equipot train`` with its defaults, on all of these structures at once; a call makes one and reports."""
    settings, found, mesh = TrainingConfig(), prepare(structures, potential.cutoff, potential.term.inner_cutoffs), mesh_of(1)
    loader = plan_training(found, atomic_energies, len(structures), 1, np.dtype(np.float32), 0)
    batch = place(mesh, loader.build(loader.shards(np.arange(len(structures)))))
    optimizer = dataclasses.replace(settings.optimizer, learning_rate=1e-3)
    descent = Descent(optimizer, settings.schedule, 1000, settings.clip, settings.ema or 0.0)
    wants = settings.loss.wants(found.quantities, potential.provides)
    stacks = Stacks(potential.params, apart=not optimizer.stackable)
    step = make_train_step(potential, settings.loss, wants, descent, mesh, stacks)
    state = replicate(mesh, first_state(stacks.stack(potential.params), descent))

    def call() -> Any:
        nonlocal state
        # The state that goes in is given up, so that each step takes the one before.
        state, report = step(state, batch, 0, 1.0)
        return report

    return call


def bundled_frames(system: str, frames: int, cutoff: float) -> tuple[list[Structure], dict[int, float]]:
    """The first training frames of a bundled set, and the isolated atoms' energies."""
    data = load_data(DataConfig(train=f"bundled:{system}/train", valid=1), 0, cutoff)
    return [data.train[k] for k in range(frames)], dict(data.atomic_energies)


def dynamics(atoms: int, steps: int, seconds: float) -> dict[str, Any]:
    """A step of molecular dynamics, neighbour list and files included, beside a bare evaluation and a bare list.

    The potential is untrained, and so weak that the atoms, at 1 K, stay where a crystal would keep them. Each chunk builds the
    list anew: once in ``steps`` steps, about as often as in a hot liquid.
    """
    structure = silicon(atoms)
    potential, graph = untrained(SMALL, [structure], scale=1e-6)
    bare, facts = compiled(energy_forces, potential, graph)
    settings = settings_of(steps)
    spec = plan(structure.positions, structure.cell, structure.pbc, potential.cutoff, settings.skin)
    geometry = graph.positions, graph.cell[0]
    build = compiled(lambda r, c: allocate(spec, r, c), *geometry)[0]
    wide = to_graph(build(), geometry[0], graph.numbers, geometry[1])
    with moving(potential, structure, steps) as chunk:
        calls = {
            "evaluation": (bare, steps),
            "list": (build, steps),
            "evaluation_in_list": (compiled(energy_forces, potential, wide)[0], steps),
            "chunk": (chunk, 1),
        }
        found = in_turn(calls, seconds)
    out = about(potential, graph) | {"steps_per_chunk": steps, "step": of_step(found.pop("chunk"), steps)} | found
    out["evaluation"] |= facts
    out["list"]["slots"] = spec.slots
    out["step_over_evaluation"] = out["step"]["cpu_ms_min"] / out["evaluation"]["cpu_ms_min"]
    return out | memory()


def settings_of(steps: int, timestep_fs: float = 1.0) -> md.MDConfig:
    """Chunks of so many steps, without a trajectory."""
    return md.MDConfig(
        model="untrained", structure="silicon", ensemble=md.NVE(), timestep_fs=timestep_fs, temperature_K=1.0, steps=10**6,
        log_every=steps, chunk_steps=steps, trajectory=None, skin=SKIN,
    )  # fmt: skip


@contextlib.contextmanager
def moving(potential: Potential, structure: Structure, steps: int, timestep_fs: float = 1.0) -> Iterator[Callable[[], Any]]:
    """A call that makes a chunk of so many steps by the driver of ``equipot md``, files included."""
    settings = settings_of(steps, timestep_fs)
    with tempfile.TemporaryDirectory() as folder:
        run = Simulation(potential, structure, settings, Path(folder) / "run", Progress(None, settings))
        at = run.start()

        def call() -> Any:
            nonlocal at
            at = run.advance(at)
            return at.state

        yield call


def of_step(chunk: dict[str, float], steps: int) -> dict[str, float]:
    """Times of a step from those of a chunk."""
    return {name: value / steps if name.endswith(("ms", "ms_min")) else value for name, value in chunk.items()}


CASES = {
    "scaling": scaling, "saved": saved, "inference": inference, "training": training, "dynamics": dynamics,
    "hessian_training": hessian_training,
}  # fmt: skip
