"""Any list of structures through a potential, in batches as large as is useful and as memory allows.

How much a batch needs is what XLA says of the compiled function (``memory_analysis``), which is asked before it runs. Compiled
functions are kept by shape, so that a list that comes again, or one like it, compiles nothing.
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
from equipot.observables import Observables
from equipot.potential import Metadata, Potential, evaluate
from equipot.quantities import TABLE
from equipot.structure import Structure

AXIS = "devices"
SLOTS_PER_CORE = 2**12
"""Slots of a batch for each core of a CPU. Larger is not faster: on two cores a small MACE evaluates 1,900 ethanol molecules a
second in batches of 300 slots, 1,500 in batches of 9,000, and 1,150 in batches of 37,000, which no cache holds."""
SLOTS = 2**20
"""Slots of a batch on an accelerator, where memory allows: tens of milliseconds of work, beside which starting it is little."""
SHARE = 0.8
"""Of the memory there is, for one batch: the rest is for batches under way and for what lies between allocations."""
SMALL = 2**24
"""Bytes that are there without asking."""


def belongs_to_graphs(name: str, potential: Potential) -> bool:
    """Whether a result has an entry for each graph; else it has one for each atom."""
    known = {row.name: row.per for row in (*TABLE, *potential.provides)} | {"interaction": "graph", "interactions": "atom"}
    return known[name] == "graph"


class TooLargeError(RuntimeError):
    """One structure alone does not fit into memory."""


class Job(NamedTuple):
    """What is done with each structure."""

    model: Potential
    want: tuple[str, ...]
    members: int = 0
    """Of an ensemble, whose variables are stacked along a leading axis; 0 for a single potential."""


Stack = tuple[Planned, ...]
"""Batches of one shape, one for each device."""


def evaluate_in_batches(
    job: Job, structures: Sequence[Structure], batch_size: int | None = None, devices: int | None = None
) -> Iterator[tuple[int, Observables]]:
    """Place and results of each structure, in any order, as numpy arrays in the potential's precision; energies are without E0.

    ``batch_size`` is the number of structures that go together, over all devices; where it is left out, as many as is useful
    and fits. ``devices`` are how many local ones may be used; nothing means all. Where a device is out of memory after all, the
    batches are halved, and a warning says so.

    Raises:
        TooLargeError: a single structure does not fit.
    """
    if batch_size is not None and (not isinstance(batch_size, int | np.integer) or batch_size < 1):
        raise ValueError(f"batch_size {batch_size!r} must be a whole number, at least 1; leave it out to have it chosen")
    # Metadata are static under jit: without them, potentials that differ in their origin share what is compiled.
    job = job._replace(model=job.model.replace(metadata=Metadata()))
    frames = prepare(structures, job.model.cutoff)
    chosen = _devices(devices)
    chosen = chosen[: len(structures) if batch_size is None else min(len(structures), batch_size)]
    if batch_size is None:
        limit, room = Limit(slots=_useful(chosen)), functools.cache(functools.partial(_room, chosen))
    else:
        limit, room = Limit(frames=-(-batch_size // len(chosen))), lambda: float("inf")
    left = np.arange(len(structures))
    while len(left):
        batches = [b._replace(frames=tuple(left[list(b.frames)].tolist())) for b in plan_batches(frames.sizes[left], limit)]
        done: set[int] = set()
        failed = yield from _pass(job, frames, _stacks(batches, len(chosen)), chosen, room, done)
        if failed is None:
            return
        left = np.array([i for i in left if i not in done], int)
        limit = _smaller(limit, failed, frames)


def _devices(count: int | None) -> list[jax.Device]:
    """Local devices to use: the default one alone where the user has chosen it."""
    default = jax.config.jax_default_device
    if default is not None:
        return jax.local_devices(backend=default)[:1] if isinstance(default, str) else [default]
    return jax.local_devices()[:count]


def _room(devices: Sequence[jax.Device]) -> float:
    """Bytes that a batch may take on each device."""
    available = memory.available(devices[0])
    if available is None:
        return float("inf")
    return SHARE * available / (len(devices) if devices[0].platform == "cpu" else 1)


def _useful(devices: Sequence[jax.Device]) -> int:
    """Slots for one device beyond which a batch gains nothing."""
    if devices[0].platform != "cpu":
        return SLOTS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return SLOTS_PER_CORE * max(1, cores // len(devices))


def _stacks(batches: Sequence[Planned], devices: int) -> list[Stack]:
    """Batches that run at the same time, no more than devices, all of one shape."""
    stacks: list[Stack] = []
    for batch in batches:
        if stacks and len(stacks[-1]) < devices and stacks[-1][0].shape == batch.shape:
            stacks[-1] = (*stacks[-1], batch)
        else:
            stacks.append((batch,))
    return stacks


class Failed(NamedTuple):
    """A batch that did not fit, and which part of its memory there is."""

    batch: Planned
    share: float


def _smaller(limit: Limit, failed: Failed, frames: Frames) -> Limit:
    """At most half of what did not fit."""
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
    """Runs batches until one does not fit, which is returned. What has been given out is added to ``done``."""
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
        atoms, slots = frames.sizes[largest.frames[0]]
        raise TooLargeError(
            f"{frames.structures[largest.frames[0]].name}: {atoms} atoms with up to {slots} neighbours do not fit into the "
            "memory of this device; use float32, a smaller model, or a device with more"
        ) from error
    warnings.warn(f"out of memory with {len(largest.frames)} structures in a batch: going on with half as many", stacklevel=4)
    return Failed(largest, 0.5)


def _warn_large(frames: Frames, batch: Planned, needed: float, room: float) -> None:
    atoms, slots = frames.sizes[batch.frames[0]]
    warnings.warn(
        f"{frames.structures[batch.frames[0]].name}: {atoms} atoms with up to {slots} neighbours need about "
        f"{needed / 2**30:.1f} GiB, but {room / SHARE / 2**30:.1f} GiB are free",
        stacklevel=4,
    )


def _build(frames: Frames, dtype: Any, devices: int, stack: Stack) -> Graph:
    """The padded graph on the host; several devices have a leading axis, and nothing where the stack has no batch for them."""
    graphs = []
    for batch in (*stack, *[stack[0]._replace(frames=())] * (devices - len(stack))):
        structures = [frames.structures[i] for i in batch.frames]
        found = [frames.slots(i, s) for i, s in zip(batch.frames, structures, strict=True)]
        graphs.append(pad(structures, frames.cutoff, batch.shape, dtype, found, frames.headed))
    return graphs[0] if devices == 1 else jax.tree.map(lambda *x: np.stack(x), *graphs)


def _sharding(devices: Sequence[jax.Device], spec: P) -> Any:
    if len(devices) == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), spec)


def _unpack(job: Job, frames: Frames, stack: Stack, found: Observables, done: set[int]) -> Iterator[tuple[int, Observables]]:
    """The results of each structure of a stack."""
    found = jax.device_get(found)
    lead = (slice(None),) * bool(job.members)
    values = dict(found.items())
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
    """The function ``(model, graph) -> Observables``, kept from last time where there is one for these shapes.

    With it comes how many bytes it takes on each device, besides the model that is there; 0 where XLA does not say.
    """
    leaves, tree = jax.tree.flatten((model, graph))
    shapes = tuple((x.shape, x.dtype, x.sharding) for x in leaves)
    return _compiled(tree, shapes, job.want, job.members > 0, tuple(devices), jax.config.jax_enable_x64)


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
