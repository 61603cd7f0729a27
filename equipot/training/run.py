"""Training run, from its config to its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from equipot import config as configs
from equipot import earlier, eqp
from equipot.console import Console, duration, stream_of
from equipot.data.config import KINDS
from equipot.data.heads import frames_by_head, label
from equipot.data.loader import Loader, plan_evaluation, plan_training
from equipot.data.stats import is_isolated_atom
from equipot.files import write_atomically
from equipot.models.network import Network
from equipot.potential import Potential
from equipot.quantities import TRAINED, Quantity
from equipot.term import Term, walk
from equipot.training import checkpoint
from equipot.training.beginning import Beginning, Trained, device_count
from equipot.training.closing import conclude
from equipot.training.config import FineTune, TrainConfig, TrainingConfig
from equipot.training.console import errors_text
from equipot.training.descent import Descent
from equipot.training.errors import evaluate_sets, predicted_quantities, write_json
from equipot.training.from_scratch import from_scratch
from equipot.training.loop import TrainingRun, fit, save_best
from equipot.training.loss import Loss
from equipot.training.memory import compile_steps
from equipot.training.page import NAME as PAGE
from equipot.training.progress import Cursor, Watch
from equipot.training.report import write_report
from equipot.training.stacks import Stacks
from equipot.training.step import State, first_state, make_train_step, make_valid_step, mesh_of, replicate
from equipot.uncertainty import fit as fit_uncertainty
from equipot.uncertainty.config import UncertaintyConfig

FREE = ("max_minutes", "checkpoint", "logger", "devices", "valid_batch_size", "refit", "uncertainty")
"""Keys of ``training`` that may change between a run and its resumption."""
DRAWN = "replayed frames in an epoch"
"""Key of the identity of a run."""
ENDINGS = {
    "finished": "finished",
    "no improvement": "stopped: no improvement for training.patience validations",
    "time limit": "stopped by training.max_minutes before steps were timed; --resume with more goes on",
}
"""Message for each reason of the end of a run."""


def train(
    config: TrainConfig,
    out: str | Path,
    resume: bool = False,
    progress: TextIO | bool | None = True,
    prepare: Callable[[TrainConfig, Path, bool], Beginning] = from_scratch,
) -> Path:
    """Fit a potential and write best.eqp, metrics.jsonl, config.yaml, checkpoints and a report into a folder.

    best.eqp is the potential of the last step, unless validation tells a better one from it: ``equipot.training.selection``.

    Args:
        config: Settings of the run.
        out: Folder of the run.
        resume: Whether to continue from the newest checkpoint in the folder.
        progress: Stream for messages; True for standard output, None or False for no messages.
        prepare: Function of config, folder and ``resume`` that prepares the run; ``equipot.finetune.fine_tune`` starts from an
            existing potential.

    Returns:
        Path of best.eqp.

    Raises:
        ValueError: data, config or checkpoint do not fit.
        NotFiniteError: the loss is not finite; the message names the frames, and the last good state is saved.
        OSError: a file could not be read or written.
        KeyboardInterrupt: the user pressed Ctrl-C; the state is saved for ``resume``.
    """
    began, out = time.monotonic(), Path(out)
    if config.ensemble is not None:
        raise ValueError("the config asks for an ensemble: call equipot.training.train_ensemble with it")
    if (out / "member-0").exists():
        raise ValueError(f"{out} holds an ensemble: go on with its config (ensemble.members), or choose another --out")
    if config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    if not resume and checkpoint.paths(out / "checkpoints"):
        raise ValueError(f"{out} holds a run already; go on with --resume, or choose another folder with --out")
    beginning = prepare(config, out, resume)
    config = beginning.config
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stream_of(progress))
    watch = Watch(config.training.checkpoint.seconds, config.training.max_minutes, began)
    run = set_up(beginning, out, console, watch)
    state, cursor = begin(run, beginning, resume)
    write_atomically(out / "config.yaml", configs.to_yaml(config).encode())
    announce(run, beginning)
    pool = ThreadPoolExecutor(1)
    try:
        compile_steps(run, state, pool)
        console.open(run.descent.steps, int(state.step))
        state, cursor, ending = fit(run, state, cursor)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        console.close()
    if ending == "interrupted":
        console.say(f"interrupted at epoch {cursor.epoch + 1}; the state is saved, --resume goes on from there")
        watch.interrupts.reraise()
    if not run.best_path.exists():
        save_best(run, state)
    finish(run, state, cursor, beginning, ending)
    return run.best_path


def finish(run: TrainingRun, state: State, cursor: Cursor, beginning: Beginning, ending: str) -> None:
    """Choose, refit and judge the best potential of a run whose steps are done, as its config says."""
    kept = conclude(run, state, cursor, beginning, ending)
    if run.config.uncertainty is not None:
        estimate_uncertainty(run, beginning, run.config.uncertainty)
    report(run, cursor, beginning, ending, kept)


def estimate_uncertainty(run: TrainingRun, beginning: Beginning, settings: UncertaintyConfig) -> None:
    """Give best.eqp an estimate of its uncertainty, from the training frames, calibrated on the validation frames."""
    every = lambda frames: [frame for k in range(len(frames)) if not is_isolated_atom(frame := frames[k])]
    train, valid = every(beginning.dataset.train), every(beginning.dataset.valid)
    run.console.say(f"uncertainty: statistics of {len(train)} training frames, calibration on {len(valid)} validation frames")
    potential = eqp.load(run.best_path)
    # The labels are those of the data less the method that is subtracted.
    made = fit_uncertainty(
        potential.correction, train, valid, settings.method_for(potential), settings.calibrator,
        run.config.valid_batch_size,
        rests_on=f"{len(train)} training frames",
    )  # fmt: skip
    eqp.save(potential.replace(posterior=made.posterior), run.best_path)


def set_up(beginning: Beginning, out: Path, console: Console, watch: Watch) -> TrainingRun:
    """Plan the batches of a run, make its steps, and open its logger."""
    config, potential, sets = beginning.config, beginning.potential, beginning.frames
    settings, frames, energies = config.training, sets["train"], beginning.dataset.atomic_energies
    assert settings.batch_size is not None and settings.epochs is not None, "chosen by training.choices"
    devices = device_count(settings, len(frames))
    mesh, dtype = mesh_of(devices), np.dtype(config.dtype)
    train_loader = plan_training(frames, energies, settings.batch_size, devices, dtype, config.seed, beginning.replay)
    steps = settings.epochs * len(train_loader.epoch(config.seed, 0))
    trained = beginning.trained
    stacks = Stacks(trained.params, apart=not settings.optimizer.stackable)
    factors = None if trained.rates is None else stacks.factors(trained.rates)
    descent = Descent(settings.optimizer, settings.schedule, steps, settings.clip, settings.ema or 0.0, factors)
    loss = Loss(settings.loss)
    wants, predicted = loss.wants(frames.quantities, potential.provides), (*TRAINED, *potential.provides)
    valid_loader, valid_step = None, None
    valid_wants: tuple[Quantity, ...] = ()
    if len(sets["valid"]):
        loss.wants(sets["valid"].quantities, potential.provides)
        valid_loader = plan_evaluation(sets["valid"], energies, settings.valid_batch_size, devices, dtype)
        valid_wants = tuple(row for row in sets["valid"].quantities if row in predicted)
        valid_step = make_valid_step(potential, loss, valid_wants, mesh, stacks)
    return TrainingRun(
        config=settings, out=out, seed=config.seed, potential=potential, descent=descent, mesh=mesh, train=train_loader,
        valid=valid_loader, train_step=make_train_step(potential, loss, wants, descent, mesh, stacks), valid_step=valid_step,
        stacks=stacks, wants=wants, valid_wants=valid_wants,
        identity=identity(beginning, devices), console=console, watch=watch,
        write=settings.logger.open(out, configs.dump(config)) if settings.logger else lambda epoch, row: None,
        whole=beginning.whole,
    )  # fmt: skip


def identity(beginning: Beginning, devices: int) -> dict[str, Any]:
    """Return the identity of a run: settings, data and base on which its numbers depend, stored with each checkpoint."""
    config, base = beginning.config, beginning.base
    settings = configs.dump(config)
    settings["training"] = {name: value for name, value in settings["training"].items() if name not in FREE}
    data: dict[str, Any] = {f"{name} set (SHA-256)": sha256 for name, sha256 in beginning.hashes.items()}
    data["isolated-atom energies"] = {str(z): float(e) for z, e in sorted(beginning.dataset.atomic_energies.items())}
    data |= {f"{name} (SHA-256)": sha256 for name, sha256 in beginning.imported.items()}
    if beginning.replay is not None:
        data[DRAWN] = beginning.replay.drawn
    paths = settings.pop("data")
    if base is not None:
        data["base (SHA-256)"] = base.sha256
        del settings["model"]["from"]
    return {"config": settings, "data": data, "paths": paths, "devices": devices}


def begin(run: TrainingRun, beginning: Beginning, resume: bool) -> tuple[State, Cursor]:
    """Make the first state and cursor of a run, or with ``resume`` take those of the checkpoint that the run goes on from.

    Raises:
        ValueError: the checkpoint belongs to another config or other data; the message lists the differences.
    """
    state, found = first_state(run.stacks.stack(jax.device_get(beginning.trained.params)), run.descent), beginning.checkpoint
    if found is None:
        if resume:
            run.console.say("no checkpoint to resume from: starting at the beginning")
        return replicate(run.mesh, state), Cursor()
    old, new = found.record["run"], run.identity
    if found.earlier:
        old, new = identity_of_earlier(old), {**new, "data": without_base(new["data"])}
    if DRAWN in new["data"]:
        # Checkpoints of earlier versions do not have it.
        old["data"].setdefault(DRAWN, new["data"][DRAWN])
    changed = checkpoint.differences(old["config"], new["config"])
    if different := checkpoint.differences(old["data"], new["data"]):
        changed += [*checkpoint.differences(old["paths"], new["paths"], "data"), *different]
    if changed:
        listed = "; ".join(changed)
        raise ValueError(f"{run.out} cannot be resumed, because this changed: {listed}. Start anew with another --out")
    for message in found.passed:
        run.console.say(f"passed over: {message}")
    if old["devices"] != run.mesh.size:
        agree = "results agree to rounding only"
        if run.train.draw.composed:
            agree = "batches are composed for the number of devices: frames of this epoch may come twice, or not at all"
        run.console.say(f"begun on {old['devices']} devices, resumed on {run.mesh.size}: {agree}")
    state = run.stacks.stack_state(state, checkpoint.restore(run.stacks.unstack_state(jax.device_get(state)), found))
    # Checkpoints of earlier versions have no place in the schedule besides the number of steps.
    cursor = Cursor(**{"position": float(state.step), **found.record["cursor"]})
    run.watch.resume(cursor.elapsed, cursor.step_seconds)
    if run.config.max_minutes is None:
        cursor = cursor._replace(advance=1.0)
    run.console.say(f"resumed from {found.path.name}: epoch {cursor.epoch + 1}, batch {cursor.batch + 1}")
    return replicate(run.mesh, state), cursor


def identity_of_earlier(identity: dict[str, Any]) -> dict[str, Any]:
    """Convert the identity in a checkpoint of an earlier version to present names, with defaults for new fields.

    The hash of a base depends on names of fields and cannot be converted; the result lacks this hash.
    """
    config = dict(identity["config"])
    config["training"] = configs.dump(configs.build(TrainingConfig, config["training"]))
    config["training"] = {name: value for name, value in config["training"].items() if name not in FREE}
    if "kind" in config["model"] and config["model"]["kind"] != FineTune.__name__:
        config["model"] = configs.dump(configs.build(Term, earlier.term_of_1(config["model"])))
    renamed = {"free-atom energies": "isolated-atom energies"}
    data = {renamed.get(name, name): value for name, value in without_base(identity["data"]).items()}
    return {**identity, "config": config, "data": data}


def without_base(data: dict[str, Any]) -> dict[str, Any]:
    """Drop the hash of a base from the data of an identity."""
    return {name: value for name, value in data.items() if not name.startswith("base")}


def announce(run: TrainingRun, beginning: Beginning) -> None:
    """Print a summary of the run: data, size of the model, trained parameters, batches and padding."""
    train, valid, potential, say = run.train, run.valid, run.potential, run.console.say
    if beginning.dataset.report:
        say(str(beginning.dataset.report))
    say(
        f"{beginning.count} training and {0 if valid is None else len(valid.frames)} validation frames; "
        f"{type(potential.term).__name__} with {count_numbers(potential.params)} parameters, "
        f"cutoff {potential.cutoff:g} Å, {potential.dtype}, "
        f"on {run.mesh.size} {run.mesh.devices.flat[0].platform} device(s)"
    )
    for line in beginning.notes:
        say(line)
    if beginning.base is not None:
        say(trained_text(potential, beginning.trained))
    assert run.config.batch_size is not None, "chosen by training.choices"
    if run.config.batch_size % run.mesh.size:
        say(
            f"training.batch_size {run.config.batch_size} is no multiple of the {run.mesh.size} devices, so that some wait for "
            "others; a multiple is faster"
        )
    length = f"{run.descent.steps} steps in {run.config.epochs} epochs"
    if run.config.max_minutes is not None:
        length += f", or as many as fit into {run.config.max_minutes:g} min"
    say(f"{length}; batches of {len(train.shapes)} shape(s), {padding(run.train, run.seed)}")


def count_numbers(tree: Any) -> int:
    """Count the numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def trained_text(potential: Potential, trained: Trained) -> str:
    """Return a message with the number of trained parameters."""
    through = f", {trained.adapted} arrays of them through adapters" if trained.adapted else ""
    compressed = any(isinstance(term, Network) and term.radial.table is not None for term in walk(potential.term))
    splines = "; its radial splines stay as they are: to train radial networks, tune the original and compress the result"
    count = f"{count_numbers(trained.params)} of {count_numbers(potential.params)} parameters"
    return f"trained: {count}{through}{splines if compressed else ''}"


def padding(loader: Loader, seed: int) -> str:
    """Describe the share of padding in the batches of the first epoch."""
    atoms, pairs = loader.padding(loader.epoch(seed, 0))
    return f"{atoms:.1%} padding of atoms, {pairs:.1%} of pairs"


def report(run: TrainingRun, cursor: Cursor, beginning: Beginning, ending: str, kept: str) -> None:
    """Evaluate the best potential, and write errors.json, report.md and train.html; of a fine-tuning with the base."""
    # The labels are those of the data less the method that is subtracted.
    potential, dataset, base = eqp.load(run.best_path).correction, beginning.dataset, beginning.base
    sets = {
        label(kind, head): frames
        for kind in ("validation", "test")
        for head, frames in zip(dataset.head_energies or ("",), frames_by_head(dataset, KINDS[kind]), strict=True)
    }
    sets |= {} if base is None else base.sets
    found = evaluate_sets(potential, sets, run.config.valid_batch_size, run.mesh.size)
    tables = {name: table for name, (table, _) in found.items()}
    results = {name: (table, sets[name], predictions) for name, (table, predictions) in found.items()}
    write_json(tables, run.out / "errors.json")
    facts = {
        "end": ENDINGS[ending],
        "potential": kept,
        "epochs": f"{cursor.epoch} of {run.config.epochs}",
        "time": duration(cursor.elapsed + time.monotonic() - run.watch.began),
        "training frames": str(beginning.count),
        "batch shapes (atoms, slots, graphs, pairs)": ", ".join(str(tuple(s)) for s in run.train.shapes),
        "compilations of the training step": str(len(run.watch.shapes)),
        "padding": padding(run.train, run.seed),
        "devices": f"{run.mesh.size} x {run.mesh.devices.flat[0].device_kind}",
    }
    if base is not None:
        facts["base"] = f"{base.name} (SHA-256 {base.sha256})"
        facts["trained"] = trained_text(run.potential, beginning.trained)
        write_json(base.before, run.out / "base-errors.json")
    before = None if base is None else base.before
    text = write_report(run.out, facts, results, run.console.say, dataset.atomic_energies, before)
    run.console.say(
        f"{ENDINGS[ending]} ({facts['epochs']} epochs, {facts['time']}; compilations of the training step: "
        f"{len(run.watch.shapes)}, {facts['padding']})"
    )
    rows = predicted_quantities(potential)
    for name in () if base is None else tables:
        assert base is not None
        run.console.say(f"{name}: base: {errors_text(base.before[name], rows)}; after: {errors_text(tables[name], rows)}")
    if text and base is None:
        run.console.say(text)
    run.console.say(f"report: {run.out / 'report.md'} and {PAGE}")
