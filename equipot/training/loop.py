"""The epochs of a run: steps, validation, the best potential, checkpoints, and a clean stop whatever happens."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from equipot import eqp
from equipot.console import Console, duration
from equipot.data.loader import Loader, Shards, prefetch, sorted_batches
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.training import checkpoint
from equipot.training.config import TrainingConfig
from equipot.training.console import show_epoch
from equipot.training.descent import Descent
from equipot.training.loggers import Writer
from equipot.training.loss import Loss
from equipot.training.progress import Cursor, Watch
from equipot.training.schedule import Schedule
from equipot.training.step import CompiledStep, State, mean_errors, mean_loss, place, with_params

KEPT_SLOTS = 2**24
"""Validation batches stay on the device while they have no more slots than this (about 0.5 GB)."""


ESTIMATE_AFTER = 10
"""Steps timed before the length of the run is estimated."""


class NotFiniteError(RuntimeError):
    """The loss became infinite or NaN; the message names the frames where it is theirs."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """All that stays the same in the course of a run."""

    config: TrainingConfig
    out: Path
    seed: int
    potential: Potential
    descent: Descent
    mesh: Mesh
    train: Loader
    valid: Loader | None
    train_step: CompiledStep
    valid_step: CompiledStep | None
    wants: tuple[Quantity, ...]
    """What is trained on."""
    valid_wants: tuple[Quantity, ...]
    """What is validated on."""
    identity: dict[str, Any]
    """What must not change between a checkpoint and its resumption."""
    console: Console
    watch: Watch
    write: Writer

    @property
    def best_path(self) -> Path:
        return self.out / "best.eqp"

    @property
    def metrics_path(self) -> Path:
        return self.out / "metrics.jsonl"


def fit(run: TrainingRun, state: State, cursor: Cursor) -> tuple[State, Cursor, str]:
    """Epochs until the last one, or until patience, time or the user end it.

    Raises:
        NotFiniteError: a loss is not finite; the last good state has been saved.
        OSError: something could not be written; the last checkpoint stands.
    """
    validation = None if run.valid is None else passes(run.valid, run.mesh)
    with run.watch.interrupts:
        while cursor.epoch < run.config.epochs:
            if run.config.patience is not None and cursor.stale >= run.config.patience:
                return state, save(run, state, cursor), "no improvement"
            state, cursor, stop = train_epoch(run, state, cursor)
            if stop:
                cursor = save(run, state, cursor)
                return state, cursor, stop
            cursor = close_epoch(run, state, cursor, validation)
            if run.watch.save_due():
                cursor = save(run, state, cursor)
        return state, save(run, state, cursor), "finished"


def train_epoch(run: TrainingRun, state: State, cursor: Cursor) -> tuple[State, Cursor, str | None]:
    """The batches of an epoch that are not done yet; the third value says why it ended before the last."""
    train = run.train
    batches = train.epoch(run.seed, cursor.epoch)[cursor.batch :]
    shards = [train.shards(batch) for batch in batches]
    feed = prefetch(shards, lambda s: place(run.mesh, train.build(s)))
    pending, fresh, clock = None, True, time.monotonic()
    try:
        for item, batch in feed:
            # The report of a step is read after the next one is under way, so that the device never waits.
            state, report = run.train_step(state, batch, cursor.factor)
            if pending is not None:
                cursor = settle(run, state, cursor, *pending)
            pending = (item, report)
            if run.watch.save_due() or run.watch.stop():
                cursor, pending = settle(run, state, cursor, *pending), None
                if stop := run.watch.stop():
                    return state, cursor, stop
                cursor = save(run, state, cursor)
            shape = train.shape(item)
            fresh, stale = shape not in run.watch.shapes, fresh
            run.watch.shapes.add(shape)
            now = time.monotonic()
            if not fresh and not stale:
                run.watch.steps.append(now - clock)
                if len(run.watch.steps) == ESTIMATE_AFTER:
                    estimate(run, cursor)
            clock = now
            run.console.advance()
        return state, cursor if pending is None else settle(run, state, cursor, *pending), None
    finally:
        feed.close()


def estimate(run: TrainingRun, cursor: Cursor) -> None:
    """Says how long the run will take, from its first steps."""
    step = run.watch.seconds_left(1, 0)
    left = run.descent.steps - cursor.epoch * len(run.train.epoch(run.seed, 0))
    run.console.say(f"{1000 * step:.3g} ms a step: about {duration(step * left)} for {left} steps, besides validation")


def settle(run: TrainingRun, state: State, cursor: Cursor, shards: Shards, report: dict[str, Any]) -> Cursor:
    """Adds a step's report to the sums of its epoch."""
    values = {name: float(value) for name, value in jax.device_get(report).items()}
    if not values["finite"]:
        good = state._replace(ok=jnp.array(True))
        save(run, good, cursor)
        step = lambda batch: run.train_step(jax.tree.map(jnp.copy, good), batch, 0.0)[1]["finite"]
        raise NotFiniteError(blame(run.train, run.mesh, shards, step, f"epoch {cursor.epoch + 1}, batch {cursor.batch + 1}"))
    sums = {name: cursor.sums.get(name, 0.0) + value for name, value in values.items()}
    return cursor._replace(batch=cursor.batch + 1, sums=sums)


def blame(loader: Loader, mesh: Mesh, shards: Shards, finite: Callable, where: str) -> str:
    """Message that names the frames of a batch whose loss or gradient is not finite, each tried alone."""
    frames = [i for shard in shards for i in shard]
    empty = ((),) * (len(shards) - 1)
    alone = lambda i: place(mesh, loader.build(((i,), *empty), loader.shape(shards)))
    bad = [i for i in frames if not bool(finite(alone(i)))]
    name = lambda i: f"{loader.frames.structures[i].name} (number {i} of its set)"
    listed = ", ".join(name(i) for i in (bad or frames)[:10])
    if bad and len(bad) < len(frames):
        cause = f"it is so for {listed} alone; look at the labels and the geometry there"
    else:
        cause = f"no single frame of the batch stands out ({listed}); lower training.optimizer.learning_rate or training.clip"
    return f"the loss or its gradient is not finite at {where}: {cause}. The last good state is kept in checkpoints/"


def passes(loader: Loader, mesh: Mesh) -> Callable[[], Iterable[tuple[Shards, Any]]]:
    """Makes passes over a set in a fixed order; a small set stays on the device."""
    items = [loader.shards(batch) for batch in sorted_batches(loader.frames.sizes, loader.batch_size)]
    build = lambda shards: place(mesh, loader.build(shards))
    slots = sum(loader.devices * shape.atoms * shape.slots for shape in map(loader.shape, items))
    if slots > KEPT_SLOTS:
        return lambda: prefetch(items, build)
    kept = list(prefetch(items, build))
    return lambda: kept


def validate(run: TrainingRun, params: Any, validation: Callable) -> tuple[float, dict[str, float]]:
    """Loss, with the weights of the end of the run, and mean errors over the validation set."""
    assert run.valid is not None and run.valid_step is not None
    step, sums = run.valid_step, dict[str, float]()
    for shards, batch in validation():
        report = {name: float(value) for name, value in jax.device_get(step(params, batch)).items()}
        if not all(abs(value) < float("inf") for value in report.values()):
            finite = lambda b: all(abs(float(v)) < float("inf") for v in step(params, b).values())
            raise NotFiniteError(blame(run.valid, run.mesh, shards, finite, "validation"))
        sums = {name: sums.get(name, 0.0) + value for name, value in report.items()}
    return mean_loss(Loss(run.config.loss), run.valid_wants, sums), mean_errors(run.valid_wants, sums)


def close_epoch(run: TrainingRun, state: State, cursor: Cursor, validation: Callable | None) -> Cursor:
    """Validates where it is due, keeps the best potential and writes the figures of the epoch."""
    config, steps = run.config, cursor.batch
    epoch = cursor.epoch + 1
    rate = float(run.descent.rate(int(state.step) - 1)) * cursor.factor
    row: dict[str, Any] = {"epoch": epoch, "step": int(state.step), "loss": cursor.sums["loss"] / steps}
    row |= {f"train_{name}": value for name, value in mean_errors(run.wants, cursor.sums).items()}
    row |= {"learning_rate": rate, "gradient_norm": cursor.sums["gradient_norm"] / steps}
    improved = False
    if epoch % config.validate_every == 0 or epoch == config.epochs:
        if validation is None:
            improved = True
        else:
            clock = time.monotonic()
            row["valid_loss"], errors = validate(run, state.ema, validation)
            run.watch.validations.append(time.monotonic() - clock)
            row |= {f"valid_{name}": value for name, value in errors.items()}
            cursor, improved = judge(config.schedule, cursor, row["valid_loss"])
        if improved:
            save_best(run, state)
    row["elapsed"] = round(cursor.elapsed + time.monotonic() - run.watch.began, 3)
    cursor = append(run, cursor._replace(epoch=epoch, batch=0, sums={}), row)
    left = run.watch.seconds_left(run.descent.steps - int(state.step), (config.epochs - epoch) // config.validate_every)
    show_epoch(run.console, row, config.epochs, left, run.valid_wants)
    run.write(epoch, {name: value for name, value in row.items() if name != "epoch"})
    return cursor


def judge(schedule: Schedule, cursor: Cursor, loss: float) -> tuple[Cursor, bool]:
    """Note a validation loss: whether it is the lowest so far, for how long none was, and what becomes of the learning rate."""
    if cursor.best is None or loss < cursor.best:
        return cursor._replace(best=loss, stale=0, wait=0), True
    factor, wait = schedule.after_validation(cursor.factor, cursor.wait + 1)
    return cursor._replace(stale=cursor.stale + 1, factor=factor, wait=wait), False


def append(run: TrainingRun, cursor: Cursor, row: dict[str, Any]) -> Cursor:
    """Adds a line to metrics.jsonl."""
    line = (json.dumps(row) + "\n").encode()
    try:
        with open(run.metrics_path, "ab") as file:
            file.truncate(cursor.metrics_bytes)
            file.write(line)
    except OSError as error:
        message = f"cannot write {run.metrics_path} ({error.strerror}); make room, then use --resume"
        raise OSError(error.errno, message) from error
    return cursor._replace(metrics_bytes=cursor.metrics_bytes + len(line))


def save_best(run: TrainingRun, state: State) -> None:
    """Writes the averaged parameters as best.eqp."""
    try:
        eqp.save(with_params(run.potential, jax.device_get(state.ema)), run.best_path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {run.best_path} ({error.strerror}); make room, then use --resume") from error


def save(run: TrainingRun, state: State, cursor: Cursor) -> Cursor:
    """Writes a checkpoint of the state and of where the run stands."""
    now = time.monotonic()
    if run.metrics_path.exists():
        with open(run.metrics_path, "rb") as file:
            os.fsync(file.fileno())
    record = {"cursor": cursor._replace(elapsed=cursor.elapsed + now - run.watch.began)._asdict(), "run": run.identity}
    checkpoint.write(run.out / "checkpoints", int(state.step), state, record, run.config.checkpoint.keep)
    run.watch.saved = time.monotonic()
    return cursor
