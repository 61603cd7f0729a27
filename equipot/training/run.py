"""A training run from its config to its report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import jax
import numpy as np

import equipot
from equipot import config as configs
from equipot import eqp
from equipot.data.batch import pad
from equipot.data.loader import Frames, Loader, epoch_batches, plan_evaluation, plan_training, prepare
from equipot.data.read import DataConfig, Dataset, load_data
from equipot.data.stats import LONGEST, statistics, typical_cutoff
from equipot.files import write_atomically
from equipot.models import fresh
from equipot.potential import Metadata, Potential, Term
from equipot.training import checkpoint
from equipot.training.console import Console, duration, stream_of
from equipot.training.evaluate import evaluate_set, write_json
from equipot.training.loop import Run, TrainingConfig, fit, save_best
from equipot.training.optimizer import Plateau, shape, transformation
from equipot.training.report import write_report
from equipot.training.session import Cursor, Watch
from equipot.training.step import Rates, State, make_train_step, make_valid_step, mesh_of, replicate, start

FREE = ("max_minutes", "checkpoint", "logger", "devices", "valid_batch_size")
"""Training keys that may change between a run and its resumption."""
EXAMPLES = 8
"""Training frames, spread over the set, on which a fresh network is brought to order one."""
ENDINGS = {
    "finished": "finished",
    "no improvement": "stopped: no improvement for training.patience validations",
    "time limit": "stopped by training.max_minutes before its last epoch; --resume goes on",
}


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    data: DataConfig
    model: Term
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    """Of the first parameters, the split and the order of the data."""
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed {self.seed} must be from 0 to {2**32 - 1}")


def train(config: TrainConfig, out: str | Path, resume: bool = False, progress: TextIO | bool | None = True) -> Path:
    """Fits a potential and leaves a folder with best.eqp, metrics.jsonl, config.yaml, checkpoints and a report.

    ``progress`` is where the run reports: True means standard output, None or False silence. Returns the path of best.eqp.

    Raises:
        ValueError: data, config or checkpoint do not fit.
        NotFiniteError: the loss is not finite; the message names the frames, the last good state is kept.
        OSError: something could not be read or written.
        KeyboardInterrupt: Ctrl-C; ``resume`` goes on from there.
    """
    began, out = time.monotonic(), Path(out)
    if config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    if not resume and checkpoint.paths(out / "checkpoints"):
        raise ValueError(f"{out} holds a run already; go on with --resume, or choose another folder with --out")
    dataset = load_data(config.data, config.seed, config.model.cutoff or LONGEST, config.model.depends_on)
    config = with_elements(with_cutoff(config, dataset), dataset)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stream_of(progress))
    sets = {"train": prepare(dataset.train, config.model.cutoff), "valid": prepare(dataset.valid, config.model.cutoff)}
    if not len(sets["train"]):
        raise ValueError("the training set is empty; look at data.train, data.valid and data.limit")
    if not len(sets["valid"]) and (config.training.patience is not None or isinstance(config.training.schedule, Plateau)):
        reader = "training.patience" if config.training.patience is not None else "the schedule Plateau"
        raise ValueError(f"{reader} waits for the validation loss, but there are no validation frames; set data.valid")
    potential = first_potential(config, dataset, sets["train"])
    watch = Watch(config.training.checkpoint.seconds, config.training.max_minutes, began)
    run = set_up(config, out, potential, sets, dataset, console, watch)
    state, cursor = begin(run, resume)
    write_atomically(out / "config.yaml", configs.to_yaml(config).encode())
    describe(run, potential, dataset, console)
    console.open(run.rates.steps, int(state.step))
    try:
        state, cursor, ending = fit(run, state, cursor)
    finally:
        console.close()
    if ending == "interrupted":
        console.say(f"interrupted at epoch {cursor.epoch + 1}; the state is saved, --resume goes on from there")
        watch.reraise()
    if not run.best_path.exists():
        save_best(run, state)
    report(run, cursor, dataset, ending)
    return run.best_path


def with_cutoff(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with the model's cutoff chosen for the data where it leaves it out."""
    if config.model.cutoff is not None:
        return config
    return dataclasses.replace(config, model=config.model.clone(cutoff=typical_cutoff(dataset.train)))


def with_elements(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with the model's elements filled in from the data where it leaves them out."""
    if not has_elements(config.model):
        return config
    present = tuple(sorted(int(z) for z in dataset.atomic_energies))
    elements = tuple(config.model.elements) or present
    missing = sorted(set(present) - set(elements))
    if missing:
        raise ValueError(f"model.elements {list(elements)} lacks Z = {missing[0]}, which the data contain; leave elements out")
    return dataclasses.replace(config, model=config.model.clone(elements=elements))


def has_elements(term: Term) -> bool:
    """Whether a model has a table of elements."""
    return any(f.name == "elements" for f in dataclasses.fields(term))


def first_potential(config: TrainConfig, dataset: Dataset, frames: Frames) -> Potential:
    """Random parameters, and the constants that the training set sets."""
    stats = statistics(frames.structures, frames.found, config.model.cutoff, dataset.atomic_energies)
    some = np.unique(np.linspace(0, len(frames) - 1, EXAMPLES).astype(int))
    graph = pad([frames.structures[int(k)] for k in some], config.model.cutoff)
    metadata = Metadata(
        atomic_energies=tuple(sorted((int(z), float(e)) for z, e in dataset.atomic_energies.items())),
        training_data=frames.sha256,
        version=equipot.__version__,
    )
    # A model may be made for more elements than the data have; those are never asked for.
    elements = config.model.elements if has_elements(config.model) else stats.elements
    place = {z: k for k, z in enumerate(stats.elements)}
    per_element = lambda values, other: np.array([values[place[z]] if z in place else other for z in elements])
    potential = fresh(
        config.model,
        graph,
        jax.random.key(config.seed),
        metadata,
        scale=per_element(stats.scale, 1.0),
        shift=per_element(stats.shift, 0.0),
        avg_num_neighbors=stats.avg_num_neighbors,
    )
    return potential.astype(config.dtype)


def set_up(
    config: TrainConfig,
    out: Path,
    potential: Potential,
    sets: dict[str, Frames],
    dataset: Dataset,
    console: Console,
    watch: Watch,
) -> Run:
    """Batches, compiled steps and whatever else a run needs."""
    settings, frames = config.training, sets["train"]
    devices = device_count(settings, len(frames))
    mesh, energies = mesh_of(devices), dataset.atomic_energies
    dtype = np.dtype(config.dtype)
    train_loader = plan_training(frames, energies, settings.batch_size, devices, dtype, config.seed)
    steps = settings.epochs * len(epoch_batches(len(frames), settings.batch_size, 0, 0))
    curve, base = shape(settings.schedule, steps), settings.optimizer.learning_rate
    rates = Rates(transformation(settings.optimizer, settings.clip), lambda s: base * curve(s), settings.ema or 0.0, steps)
    wants = settings.loss.wants(frames.labels)
    if len(sets["valid"]):
        settings.loss.wants(sets["valid"].labels)
    valid_loader = valid_step = None
    if len(sets["valid"]):
        valid_loader = plan_evaluation(sets["valid"], energies, settings.valid_batch_size, devices, dtype)
        valid_wants = tuple(name for name in ("energy", "forces", "stress") if name in sets["valid"].labels)
        valid_step = make_valid_step(potential, settings.loss, valid_wants, mesh)
    return Run(
        config=settings, out=out, seed=config.seed, potential=potential, rates=rates, mesh=mesh, train=train_loader,
        valid=valid_loader, train_step=make_train_step(potential, settings.loss, wants, rates, mesh), valid_step=valid_step,
        identity=identity(config, sets, dataset, devices), console=console, watch=watch,
        write=settings.logger.open(out, configs.dump(config)) if settings.logger else lambda epoch, row: None,
    )  # fmt: skip


def device_count(settings: TrainingConfig, frames: int) -> int:
    """Local devices that a batch is spread over.

    Raises:
        ValueError: more are asked for than there are.
    """
    there = jax.local_device_count()
    if settings.devices is not None and settings.devices > there:
        raise ValueError(f"training.devices {settings.devices}: JAX has only {there} here; leave it out to use all")
    return min(settings.devices or there, settings.batch_size, frames)


def identity(config: TrainConfig, sets: dict[str, Frames], dataset: Dataset, devices: int) -> dict[str, Any]:
    """What a checkpoint belongs to: the settings and the data that its numbers follow from."""
    settings = configs.dump(config)
    settings["training"] = {name: value for name, value in settings["training"].items() if name not in FREE}
    data = {f"{name} set (SHA-256)": frames.sha256 for name, frames in sets.items()}
    data["free-atom energies"] = {str(z): float(e) for z, e in sorted(dataset.atomic_energies.items())}
    paths = settings.pop("data")
    return {"config": settings, "data": data, "paths": paths, "devices": devices}


def begin(run: Run, resume: bool) -> tuple[State, Cursor]:
    """The first state, or that of the newest checkpoint.

    Raises:
        ValueError: the checkpoint belongs to another config or other data; the message says which.
    """
    state = start(run.potential.variables["params"], run.rates)
    found = checkpoint.newest(run.out / "checkpoints") if resume else None
    if found is None:
        if resume:
            run.console.say("no checkpoint to resume from: starting at the beginning")
        return replicate(run.mesh, state), Cursor()
    path, arrays, record, passed = found
    old, new = record["run"], run.identity
    changed = checkpoint.differences(old["config"], new["config"])
    if different := checkpoint.differences(old["data"], new["data"]):
        changed += [*checkpoint.differences(old["paths"], new["paths"], "data"), *different]
    if changed:
        listed = "; ".join(changed)
        raise ValueError(f"{run.out} cannot be resumed, because this changed: {listed}. Start anew with another --out")
    for message in passed:
        run.console.say(f"passed over: {message}")
    if old["devices"] != run.mesh.size:
        run.console.say(f"begun on {old['devices']} devices, resumed on {run.mesh.size}: results agree to rounding only")
    cursor = Cursor(**record["cursor"])
    run.console.say(f"resumed from {path.name}: epoch {cursor.epoch + 1}, batch {cursor.batch + 1}")
    return replicate(run.mesh, checkpoint.restore(state, arrays, path.name)), cursor


def describe(run: Run, potential: Potential, dataset: Dataset, console: Console) -> None:
    """Says what is going to happen: data, size of the model, batches, padding."""
    train, valid = run.train, run.valid
    count = sum(leaf.size for leaf in jax.tree.leaves(potential.variables["params"]))
    if dataset.report:
        console.say(str(dataset.report))
    console.say(
        f"{len(train.frames)} training and {0 if valid is None else len(valid.frames)} validation frames; "
        f"{type(potential.term).__name__} with {count} parameters, cutoff {potential.cutoff:g} Å, {potential.dtype}, "
        f"on {run.mesh.size} {run.mesh.devices.flat[0].platform} device(s)"
    )
    if run.config.batch_size % run.mesh.size:
        console.say(
            f"training.batch_size {run.config.batch_size} is no multiple of the {run.mesh.size} devices, so that some wait for "
            "others; a multiple is faster"
        )
    console.say(
        f"{run.rates.steps} steps in {run.config.epochs} epochs; batches of {len(train.shapes)} shape(s), "
        f"{padding(run.train, run.seed):.0%} padding"
    )


def padding(loader: Loader, seed: int) -> float:
    """Share of padding in the first epoch."""
    return loader.padding(epoch_batches(len(loader.frames), loader.batch_size, seed, 0))


def report(run: Run, cursor: Cursor, dataset: Dataset, ending: str) -> None:
    """The error table, on the console and in report.md, with plots."""
    potential = eqp.load(run.best_path)
    sets: dict[str, Sequence[Any]] = {"validation": dataset.valid, "test": dataset.test or []}
    results = {}
    for name, structures in sets.items():
        if len(structures):
            table, predictions = evaluate_set(potential, structures, run.config.valid_batch_size, run.mesh.size)
            results[name] = (table, structures, predictions)
    write_json({name: table for name, (table, _, _) in results.items()}, run.out / "errors.json")
    facts = {
        "end": ENDINGS[ending],
        "epochs": f"{cursor.epoch} of {run.config.epochs}",
        "time": duration(cursor.elapsed + time.monotonic() - run.watch.began),
        "training frames": str(len(run.train.frames)),
        "batch shapes (atoms, slots, graphs)": ", ".join(str(tuple(s)) for s in run.train.shapes),
        "compilations of the training step": str(len(run.watch.shapes)),
        "padding": f"{padding(run.train, run.seed):.1%}",
        "devices": f"{run.mesh.size} x {run.mesh.devices.flat[0].device_kind}",
    }
    text = write_report(run.out, facts, results, dataset.atomic_energies)
    run.console.say(f"{ENDINGS[ending]} ({facts['epochs']} epochs, {facts['time']})")
    if text:
        run.console.say(text)
    run.console.say(f"report: {run.out / 'report.md'}")
