"""Evaluate a potential on a list of structures, in batches whose size is limited by speed and memory.

The memory of a batch is estimated by XLA (``memory_analysis`` of the compiled function) before the batch runs. Compiled
functions are cached by shape, so that the next list of similar structures compiles nothing.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from equipot import memory
from equipot.data.batch import pad
from equipot.data.loader import Frames, prefetch, prepare
from equipot.data.plan import Limit, Planned, plan_batches
from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.observables import Observables
from equipot.potential import Potential, evaluate
from equipot.quantities import RESULTS
from equipot.structure import Structure

AXIS = "devices"
SLOTS_PER_CORE = 2**12
"""Slots of a batch per CPU core. Larger batches are not faster: on two cores a small MACE evaluates 1,900 ethanol molecules a
second in batches of 300 slots, 1,500 in batches of 9,000, and 1,150 in batches of 37,000, which no cache holds."""
SLOTS = 2**20
"""Slots of a batch on an accelerator, if memory allows: tens of milliseconds of work, much longer than a kernel launch."""
SHARE = 0.8
"""Share of the available memory for one batch; the rest is for other batches in flight and for fragmentation."""
SMALL = 2**24
"""Bytes below which available memory is not checked."""


def belongs_to_graphs(name: str, potential: Potential) -> bool:
    """Whether a result, by its name, has one value per graph instead of one per atom."""
    known = {row.name: row.per for row in (*RESULTS, *potential.provides)} | {"interaction": "graph", "interactions": "atom"}
    return known[name] == "graph"


class TooLargeError(RuntimeError):
    """A single structure does not fit into memory."""


class Job(NamedTuple):
    """Potential and observables to evaluate for each structure."""

    model: Potential
    want: tuple[str, ...]
    members: int = 0
    """Number of potentials in an ensemble, with variables stacked along a leading axis; 0 for a single potential."""


Stack = tuple[Planned, ...]
"""Batches of one shape, one for each device."""


def evaluate_in_batches(
    job: Job, structures: Sequence[Structure], batch_size: int | None = None, devices: int | None = None
) -> Iterator[tuple[int, Observables]]:
    """Iterate over index and results of each structure, in any order: numpy arrays in the potential's precision, without E0.

    If a device runs out of memory, a warning is given and batches are halved.

    Args:
        batch_size: structures per batch over all devices; None to choose by memory and speed.
        devices: largest number of local devices to use; None for all.

    Raises:
        ValueError: a batch size below 1.
        TooLargeError: a single structure does not fit into memory.
    """
    if batch_size is not None and (not isinstance(batch_size, int | np.integer) or batch_size < 1):
        raise ValueError(f"batch_size {batch_size!r} must be a whole number, at least 1; leave it out to have it chosen")
    # Metadata are static under jit: without them, potentials that differ in their origin share what is compiled.
    job = job._replace(model=job.model.replace(metadata=Metadata()))
    frames = prepare(structures, job.model.cutoff, job.model.term.inner_cutoffs, extent=job.model.extent(structures))
    chosen = _devices(devices)
    chosen = chosen[: len(structures) if batch_size is None else min(len(structures), batch_size)]
    room: Callable[[], float] = lambda: float("inf")
    if batch_size is None:
        limit, room = Limit(slots=_useful(chosen)), functools.cache(functools.partial(_room, chosen))
    else:
        limit = Limit(frames=-(-batch_size // len(chosen)))
    left = np.arange(len(structures))
    while len(left):
        batches = [b._replace(frames=tuple(left[list(b.frames)].tolist())) for b in plan_batches(frames.sizes[left, :2], limit)]
        done: set[int] = set()
        failed = yield from _pass(job, frames, _stacks(batches, len(chosen)), chosen, room, done)
        if failed is None:
            return
        left = np.array([i for i in left if i not in done], int)
        limit = _smaller(limit, failed, frames)


def _devices(count: int | None) -> list[jax.Device]:
    """Return the local devices to use: only ``jax_default_device`` if the user has set that."""
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    if default is not None:
        return jax.local_devices(backend=default)[:1] if isinstance(default, str) else [default]
    return jax.local_devices()[:count]


def _room(devices: Sequence[jax.Device]) -> float:
    """Return the bytes that a batch may take on each device."""
    available = memory.available(devices[0])
    if available is None:
        return float("inf")
    return SHARE * available / (len(devices) if devices[0].platform == "cpu" else 1)


def useful_slots() -> int:
    """Return the slots (atoms times neighbours) of a batch on one device beyond which larger ones are not faster."""
    return _useful(_devices(1))


def _useful(devices: Sequence[jax.Device]) -> int:
    """Return the slots per device beyond which larger batches are not faster."""
    if devices[0].platform != "cpu":
        return SLOTS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return SLOTS_PER_CORE * max(1, cores // len(devices))


def _stacks(batches: Sequence[Planned], devices: int) -> list[Stack]:
    """Group batches of one shape that run at the same time, at most one per device."""
    stacks: list[Stack] = []
    for batch in batches:
        if stacks and len(stacks[-1]) < devices and stacks[-1][0].shape == batch.shape:
            stacks[-1] = (*stacks[-1], batch)
        else:
            stacks.append((batch,))
    return stacks


class Failed(NamedTuple):
    """Batch that did not fit into memory."""

    batch: Planned
    share: float
    """Available memory over needed memory."""


def _smaller(limit: Limit, failed: Failed, frames: Frames) -> Limit:
    """Reduce the limit to at most half of the batch that did not fit."""
    indices = list(failed.batch.frames)
    share = min(0.5, failed.share)
    if limit.frames is not None:
        return limit._replace(frames=max(1, int(share * len(indices))))
    atoms, slots = int(frames.sizes[indices, 0].sum()), int(frames.sizes[indices, 1].max())
    return limit._replace(slots=max(1, int(share * min(limit.slots or atoms * slots, atoms * slots))))


def _pass(
    job: Job,
    frames: Frames,
    stacks: Sequence[Stack],
    devices: Sequence[jax.Device],
    room: Callable[[], float],
    done: set[int],
) -> Generator[tuple[int, Observables], None, Failed | None]:
    """Run batches until one does not fit, and return that one; ``done`` collects the indices of evaluated structures."""
    together = devices[: max(map(len, stacks))]
    place = _sharding(together, P(AXIS))
    model = jax.device_put(job.model, _sharding(together, P()))
    build = functools.partial(_build, frames, job.model.dtype, len(together))
    # A thread pays only where there is something to build ahead.
    feed = prefetch(stacks, build) if len(stacks) > 1 else ((stack, build(stack)) for stack in stacks)
    pending: tuple[Stack, Any] | None = None
    stack = stacks[0]
    try:
        for stack, built in feed:
            graph = jax.device_put(built, place)
            call, needed = compiled(job, model, graph, together)
            fits = needed <= SMALL or needed <= room()
            if not fits and len(stack[0].frames) == 1:
                _warn_large(frames, stack[0], needed, room())
                fits = True
            # Results are fetched when the next batch is under way, so that the device never waits.
            before, pending = pending, (stack, call(model, graph)) if fits else None
            if before is not None:
                yield from _unpack(job, frames, *before, done)
            if not fits:
                return Failed(stack[0], room() / needed)
        if pending is not None:
            yield from _unpack(job, frames, *pending, done)
        return None
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _out_of_memory(frames, stack, error)
    finally:
        feed.close()


def _out_of_memory(frames: Frames, stack: Stack, error: Exception) -> Failed:
    largest = max(stack, key=lambda b: len(b.frames))
    if len(largest.frames) == 1:
        atoms, slots = frames.sizes[largest.frames[0], :2]
        raise TooLargeError(
            f"{frames.structures[largest.frames[0]].name}: {atoms} atoms with up to {slots} neighbours do not fit into the "
            "memory of this device; use float32, a smaller model, or a device with more"
        ) from error
    warnings.warn(f"out of memory with {len(largest.frames)} structures in a batch: going on with half as many", stacklevel=4)
    return Failed(largest, 0.5)


def _warn_large(frames: Frames, batch: Planned, needed: float, room: float) -> None:
    atoms, slots = frames.sizes[batch.frames[0], :2]
    warnings.warn(
        f"{frames.structures[batch.frames[0]].name}: {atoms} atoms with up to {slots} neighbours need about "
        f"{needed / 2**30:.1f} GiB, but {room / SHARE / 2**30:.1f} GiB are free",
        stacklevel=4,
    )


def _build(frames: Frames, dtype: Any, devices: int, stack: Stack) -> Graph:
    """Build the padded graph on the host; with several devices, stack one graph per device, empty without a batch."""
    graphs = []
    for batch in (*stack, *[stack[0]._replace(frames=())] * (devices - len(stack))):
        structures = [frames.structures[i] for i in batch.frames]
        found = [frames.slots(i, s) for i, s in zip(batch.frames, structures, strict=True)]
        known = found, frames.headed, frames.extent, frames.shells
        graphs.append(pad(structures, frames.cutoff, batch.shape, dtype, *known))
    return graphs[0] if devices == 1 else jax.tree.map(lambda *x: np.stack(x), *graphs)


def _sharding(devices: Sequence[jax.Device], spec: P) -> Any:
    if len(devices) == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), spec)


def _unpack(job: Job, frames: Frames, stack: Stack, found: Observables, done: set[int]) -> Iterator[tuple[int, Observables]]:
    """Iterate over index and results of each structure of a stack; ``done`` collects the indices."""
    found = jax.device_get(found)
    lead = (slice(None),) * bool(job.members)
    values: dict[str, Any] = dict(found.items())
    graphs = {name for name in values if belongs_to_graphs(name, job.model)}
    several = values["interaction"].ndim > len(lead) + 1
    for device, batch in enumerate(stack):
        mine = {name: value[device] if several else value for name, value in values.items()}
        first = 0
        for k, i in enumerate(batch.frames):
            rows = slice(first, first + int(frames.sizes[i, 0]))
            first = rows.stop
            done.add(i)
            yield i, Observables.of({name: value[*lead, k if name in graphs else rows] for name, value in mine.items()})


def compiled(job: Job, model: Potential, graph: Graph, devices: Sequence[jax.Device]) -> tuple[Callable, int]:
    """Return the compiled function ``(model, graph) -> Observables``, cached by shapes, and the memory that a call needs.

    The memory is in bytes per device, without the model; 0 if XLA does not report it.
    """
    leaves, tree = jax.tree.flatten((model, graph))
    shapes = tuple((x.shape, x.dtype, x.sharding) for x in leaves)
    wide: bool = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    return _compiled(tree, shapes, job.want, job.members > 0, tuple(devices), wide)


@functools.lru_cache(maxsize=256)
def _compiled(
    tree: Any, shapes: tuple, want: tuple[str, ...], ensemble: bool, devices: tuple[jax.Device, ...], wide: bool
) -> tuple[Callable, int]:
    def one(model: Potential, graph: Graph) -> Observables:
        if not ensemble:
            return evaluate(model, graph, want)
        return jax.vmap(lambda variables: evaluate(model.replace(variables=variables), graph, want))(model.variables)

    def shard(model: Potential, graph: Graph) -> Observables:
        return jax.tree.map(lambda x: x[None], one(model, jax.tree.map(lambda x: x[0], graph)))

    whole = one
    if len(devices) > 1:
        mesh = Mesh(np.array(devices), (AXIS,))
        whole = jax.shard_map(shard, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False)
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype, sharding in shapes]
    model, graph = jax.tree.unflatten(tree, arguments)
    call = jax.jit(whole).lower(model, graph).compile()
    said = call.memory_analysis()
    if said is None:
        return call, 0
    there = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(model))
    return call, said.temp_size_in_bytes + said.output_size_in_bytes + max(0, said.argument_size_in_bytes - there)
