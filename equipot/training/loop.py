"""The epochs of a run: steps, validation, the best potential, checkpoints, and an orderly stop."""

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
from equipot.data.draw import Shards, sorted_batches
from equipot.data.loader import Loader, prefetch
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.training import checkpoint
from equipot.training.config import TrainingConfig
from equipot.training.console import show_epoch
from equipot.training.descent import Descent
from equipot.training.loggers import Writer
from equipot.training.loss import Loss
from equipot.training.progress import ESTIMATE_AFTER, Cursor, Watch
from equipot.training.schedule import Schedule
from equipot.training.stacks import Stacks
from equipot.training.step import CompiledStep, State, mean_errors, mean_loss, place, with_params

KEPT_SLOTS = 2**24
"""Largest number of slots (about 0.5 GB) of validation batches that stay on the device."""


class NotFiniteError(RuntimeError):
    """The loss or its gradient became infinite or NaN; the message names the frames that cause this, if any."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """The parts of a run that its steps do not change."""

    config: TrainingConfig
    out: Path
    """Folder of the run."""
    seed: int
    potential: Potential
    descent: Descent
    mesh: Mesh
    stacks: Stacks
    """How the parameters stand in the state."""
    train: Loader
    valid: Loader | None
    train_step: CompiledStep
    valid_step: CompiledStep | None
    wants: tuple[Quantity, ...]
    """Quantities in the training loss."""
    valid_wants: tuple[Quantity, ...]
    """Quantities in the validation loss and in the validation errors."""
    identity: dict[str, Any]
    """Settings and hashes of the data that must be equal when a checkpoint is resumed, see ``run.identity``."""
    console: Console
    watch: Watch
    write: Writer
    """Function of the logger that writes the figures of an epoch."""
    whole: Callable[[Potential], Potential] | None = None
    """Function from the trained potential to the one to be saved, where they differ."""

    @property
    def best_path(self) -> Path:
        """File of the best potential."""
        return self.out / "best.eqp"

    @property
    def metrics_path(self) -> Path:
        """File of the figures of each epoch."""
        return self.out / "metrics.jsonl"


def fit(run: TrainingRun, state: State, cursor: Cursor) -> tuple[State, Cursor, str]:
    """Train until the end of the schedule, or until patience or the user ends the run.

    Returns:
        State, cursor, and the reason of the end: a key of ``run.ENDINGS`` or ``interrupted``.

    Raises:
        NotFiniteError: a loss is not finite; the last good state has been saved.
        OSError: a file could not be written; the last checkpoint is kept.
    """
    validation = None if run.valid is None else batches_in_order(run.valid, run.mesh)
    with run.watch.interrupts:
        # A run that was killed after its last step, but before the end of that step's epoch, still closes the epoch.
        while cursor.position < run.descent.steps or cursor.batch:
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
    """Train on the remaining batches of an epoch.

    Returns:
        State, cursor, and the reason why the run must stop at once; None at the end of the epoch or of the schedule.
    """
    train = run.train
    batches, key = train.epoch(run.seed, cursor.epoch)[cursor.batch :], (run.seed, cursor.epoch)
    shards = [train.shards(batch) for batch in batches]
    feed = prefetch(shards, lambda s: place(run.mesh, train.build(s, key=key)))
    pending, fresh, alone, clock = None, True, len(shards) == 1, None
    try:
        for item, batch in feed:
            # The time until the first batch of an epoch is built is not that of a step.
            clock = clock or time.monotonic()
            position = cursor.position + (0 if pending is None else cursor.advance)
            if position >= run.descent.steps:
                break
            # The report of a step is read after the next step was started, so that the device never waits.
            state, report = run.train_step(state, batch, int(position), cursor.factor)
            if pending is not None:
                cursor = add_report(run, state, cursor, *pending)
            pending = (item, report)
            shape = train.shape(item)
            fresh, stale = shape not in run.watch.shapes, fresh
            run.watch.shapes.add(shape)
            ends = run.watch.save_due() or run.watch.stop()
            if ends or alone:
                cursor, pending = add_report(run, state, cursor, *pending), None
            if ends:
                if stop := run.watch.stop():
                    return state, cursor, stop
                cursor = save(run, state, cursor)
            now = time.monotonic()
            compiles = run.train_step.compiles or (run.valid_step is not None and run.valid_step.compiles)
            if not fresh and (alone or not stale):
                (run.watch.hindered if compiles else run.watch.steps).append(now - clock)
                if not compiles and len(run.watch.steps) - run.watch.seeded == ESTIMATE_AFTER:
                    estimate(run, cursor)
            clock = now
            run.console.advance(timed=not fresh and not compiles)
            cursor = paced(run, cursor)
        return state, cursor if pending is None else add_report(run, state, cursor, *pending), None
    finally:
        feed.close()


def paced(run: TrainingRun, cursor: Cursor) -> Cursor:
    """Set the part of the schedule that each further step covers, by the time that is left.

    ``cursor`` is at a step that was started and is not yet counted. A schedule is never stretched.
    """
    left = run.descent.steps - cursor.position
    advance = run.watch.advance(left, run.config.validate_every * len(run.train.epoch(run.seed, cursor.epoch)))
    return cursor if advance is None or left <= 0 else cursor._replace(advance=max(1.0, advance))


def estimate(run: TrainingRun, cursor: Cursor) -> None:
    """Print an estimate of the length of the run from the times of its first steps."""
    step = run.watch.seconds_left(1, 0)
    left = (run.descent.steps - cursor.position) / paced(run, cursor).advance
    run.console.say(f"{1000 * step:.3g} ms a step: about {duration(step * left)} for {left:.0f} steps, besides validation")


def add_report(run: TrainingRun, state: State, cursor: Cursor, shards: Shards, report: dict[str, Any]) -> Cursor:
    """Add a step's report to the sums of its epoch.

    Raises:
        NotFiniteError: the loss or the gradient of the step is not finite; the state before the step has been saved.
    """
    values = {name: float(value) for name, value in jax.device_get(report).items()}
    if not values["finite"]:
        good = state._replace(ok=jnp.array(True))
        save(run, good, cursor)
        step = lambda batch: run.train_step(jax.tree.map(jnp.copy, good), batch, 0, 0.0)[1]["finite"]
        where = f"epoch {cursor.epoch + 1}, batch {cursor.batch + 1}"
        raise NotFiniteError(not_finite_text(run.train, run.mesh, shards, step, where))
    sums = {name: cursor.sums.get(name, 0.0) + value for name, value in values.items()}
    return cursor._replace(batch=cursor.batch + 1, position=cursor.position + cursor.advance, sums=sums)


def not_finite_text(loader: Loader, mesh: Mesh, shards: Shards, finite: Callable, where: str) -> str:
    """Return an error message that names the frames of a batch whose loss or gradient is not finite, each tested alone.

    Args:
        loader: Loader of the set.
        mesh: Devices.
        shards: Frames of the batch, by device.
        finite: Function of a batch: whether its loss and gradient are finite.
        where: Place of the batch in the run, for the message.
    """
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


def batches_in_order(loader: Loader, mesh: Mesh) -> Callable[[], Iterable[tuple[Shards, Any]]]:
    """Return a function that iterates over the batches of a set in a fixed order; a small set stays on the device."""
    items = [loader.shards(batch) for batch in sorted_batches(loader.frames.sizes, loader.batch_size)]
    build = lambda shards: place(mesh, loader.build(shards))
    slots = sum(loader.devices * shape.atoms * shape.slots for shape in map(loader.shape, items))
    if slots > KEPT_SLOTS:
        return lambda: prefetch(items, build)
    kept = list(prefetch(items, build))
    return lambda: kept


def validate(run: TrainingRun, params: Any, validation: Callable) -> tuple[float, dict[str, float]]:
    """Compute the loss, with the weights of the end of the run, and the mean errors over the validation set.

    Args:
        run: Training run.
        params: Trained parameters, by ``run.stacks``.
        validation: Function that iterates over the validation batches.

    Raises:
        NotFiniteError: the loss or an error is not finite.
    """
    assert run.valid is not None and run.valid_step is not None
    step, sums = run.valid_step, dict[str, float]()
    for shards, batch in validation():
        report = {name: float(value) for name, value in jax.device_get(step(params, batch)).items()}
        if not all(abs(value) < float("inf") for value in report.values()):
            finite = lambda b: all(abs(float(v)) < float("inf") for v in step(params, b).values())
            raise NotFiniteError(not_finite_text(run.valid, run.mesh, shards, finite, "validation"))
        sums = {name: sums.get(name, 0.0) + value for name, value in report.items()}
    return mean_loss(Loss(run.config.loss), run.valid_wants, sums), mean_errors(run.valid_wants, sums)


def close_epoch(run: TrainingRun, state: State, cursor: Cursor, validation: Callable | None) -> Cursor:
    """Validate if this epoch asks for a validation, save the best potential, and write the figures of the epoch."""
    config, steps = run.config, cursor.batch
    epoch, share = cursor.epoch + 1, min(1.0, cursor.position / run.descent.steps)
    rate = float(run.descent.rate(int(cursor.position - cursor.advance))) * cursor.factor
    row: dict[str, Any] = {"epoch": epoch, "step": int(state.step), "loss": cursor.sums["loss"] / steps}
    row |= {f"train_{name}": value for name, value in mean_errors(run.wants, cursor.sums).items()}
    row |= {"learning_rate": rate, "gradient_norm": cursor.sums["gradient_norm"] / steps}
    improved = False
    if epoch % config.validate_every == 0 or share == 1:
        if validation is None:
            improved = True
        else:
            clock = time.monotonic()
            row["valid_loss"], errors = validate(run, state.ema, validation)
            run.watch.validations.append(time.monotonic() - clock)
            row |= {f"valid_{name}": value for name, value in errors.items()}
            cursor, improved = add_validation(config.schedule, cursor, row["valid_loss"])
        if improved:
            save_best(run, state)
    row["elapsed"] = round(cursor.elapsed + time.monotonic() - run.watch.began, 3)
    cursor = append_metrics(run, cursor._replace(epoch=epoch, batch=0, sums={}), row)
    steps_left = int((run.descent.steps - cursor.position) / cursor.advance)
    left = run.watch.seconds_left(steps_left, steps_left // (steps * config.validate_every))
    show_epoch(run.console, row, share, left, run.valid_wants)
    run.write(epoch, {name: value for name, value in row.items() if name != "epoch"})
    return cursor


def add_validation(schedule: Schedule, cursor: Cursor, loss: float) -> tuple[Cursor, bool]:
    """Add a validation loss to the cursor, and let the schedule change the factor on the learning rate.

    Returns:
        The cursor, and whether the loss is the lowest so far.
    """
    if cursor.best is None or loss < cursor.best:
        return cursor._replace(best=loss, stale=0, wait=0), True
    factor, wait = schedule.after_validation(cursor.factor, cursor.wait + 1)
    return cursor._replace(stale=cursor.stale + 1, factor=factor, wait=wait), False


def append_metrics(run: TrainingRun, cursor: Cursor, row: dict[str, Any]) -> Cursor:
    """Append a line to metrics.jsonl, in place of lines that were written after the last checkpoint.

    Raises:
        OSError: the file could not be written.
    """
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
    """Write the potential with the averaged parameters as best.eqp."""
    save_potential(run, with_params(run.potential, run.stacks.unstack_state(jax.device_get(state.ema))))


def save_potential(run: TrainingRun, trained: Potential) -> None:
    """Write a potential as best.eqp.

    Raises:
        OSError: the file could not be written.
    """
    try:
        eqp.save(trained if run.whole is None else run.whole(trained), run.best_path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {run.best_path} ({error.strerror}); make room, then use --resume") from error


def save(run: TrainingRun, state: State, cursor: Cursor) -> Cursor:
    """Write a checkpoint of the state and the cursor."""
    now = time.monotonic()
    if run.metrics_path.exists():
        with open(run.metrics_path, "rb") as file:
            os.fsync(file.fileno())
    step = run.watch.step_seconds or cursor.step_seconds
    timed = cursor._replace(elapsed=cursor.elapsed + now - run.watch.began, step_seconds=step)
    record = {"cursor": timed._asdict(), "run": run.identity}
    whole = run.stacks.unstack_state(jax.device_get(state))
    checkpoint.write(run.out / "checkpoints", int(state.step), whole, record, run.config.checkpoint.keep)
    run.watch.saved = time.monotonic()
    return cursor
