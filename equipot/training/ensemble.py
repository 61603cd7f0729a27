"""Ensembles: several runs that differ in their seeds, frames or models, joined to a committee with calibrated deviations."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import yaml

from equipot import config as configs
from equipot import eqp
from equipot.console import Console, duration, stream_of
from equipot.data.stats import is_isolated_atom
from equipot.files import write_atomically
from equipot.physics.committee import committee
from equipot.potential import Potential
from equipot.training.beginning import Beginning
from equipot.training.checkpoint import differences
from equipot.training.config import TrainConfig
from equipot.training.errors import evaluate_sets, write_json
from equipot.training.from_scratch import from_scratch
from equipot.training.page import NAME as PAGE
from equipot.training.report import write_report
from equipot.training.run import ENDINGS, FREE, train
from equipot.uncertainty import fit as fit_uncertainty
from equipot.uncertainty.calibration import FEWEST
from equipot.uncertainty.config import UncertaintyConfig

SEEDS = 1_000_003
"""Difference between the seeds of two members."""


def train_ensemble(
    config: TrainConfig,
    out: str | Path,
    resume: bool = False,
    progress: TextIO | bool | None = True,
    prepare: Callable[[TrainConfig, Path, bool], Beginning] = from_scratch,
) -> Path:
    """Train the members that ``config.ensemble`` asks for, one after another, into ``member-0``, ``member-1``, ..., and join
    them to a committee with calibrated deviations, best.eqp.

    All members have the validation and test frames of one member, on which the committee is calibrated and reported.

    Args:
        config, out, resume, progress, prepare: As of ``train``; ``resume`` goes on with the first member that is not complete.

    Returns:
        Path of best.eqp.

    Raises:
        ValueError, NotFiniteError, OSError, KeyboardInterrupt: As ``train``; ValueError also where a time limit leaves a member
            untrained.
    """
    began, out, ensemble = time.monotonic(), Path(out), config.ensemble
    assert ensemble is not None, "of a config with an ensemble"
    if not resume and (out / "member-0").exists():
        raise ValueError(f"{out} holds an ensemble already; go on with --resume, or choose another folder with --out")
    check_same(config, out / "config.yaml")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "config.yaml", configs.to_yaml(config).encode())
    console = Console(stream_of(progress))
    paths = []
    for k in range(ensemble.members):
        folder = out / f"member-{k}"
        console.say(f"member {k + 1} of {ensemble.members}: {folder}")
        if resume and is_complete(folder):
            paths.append(folder / "best.eqp")
            console.say("complete")
            continue
        paths.append(train(member_config(config, k), folder, resume and folder.exists(), progress, prepare))
        if not is_complete(folder):
            raise ValueError(f"member {k + 1} was {ENDINGS['time limit']}: {folder}")
    whole = dataclasses.replace(ensemble, bootstrap=False)
    beginning = prepare(member_config(dataclasses.replace(config, ensemble=whole), 0), out / "member-0", True)
    best = join([eqp.load(path) for path in paths], config, beginning, out, console)
    report(best, config, beginning, out, console, {"time": duration(time.monotonic() - began)})
    return best


def is_complete(folder: Path) -> bool:
    """Whether a member has ended, and not by a time limit that left it untrained."""
    report = folder / "report.md"
    return report.exists() and ENDINGS["time limit"] not in report.read_text(encoding="utf-8")


def check_same(config: TrainConfig, path: Path) -> None:
    """Check that an ensemble that goes on has the config that it began with, but for the number of its members.

    Raises:
        ValueError: it has another one; the message lists the differences.
    """
    if not path.exists():
        return
    old, new = yaml.safe_load(path.read_text()), yaml.safe_load(configs.to_yaml(config))
    if old["ensemble"] is None:
        raise ValueError(f"{path.parent} holds a run of a single potential, no ensemble: choose another --out")
    for settings in (old, new):
        settings["ensemble"]["members"] = 0
        settings["training"] = {name: value for name, value in settings["training"].items() if name not in FREE}
    if changed := differences(old, new):
        raise ValueError(
            f"{path.parent} cannot be resumed, because this changed: {'; '.join(changed)}. Start anew with another --out"
        )


def member_config(config: TrainConfig, k: int) -> TrainConfig:
    """Return the config of a member: the split of the whole, but another seed, model and selection of frames."""
    ensemble = config.ensemble
    assert ensemble is not None, "of a config with an ensemble"
    data = dataclasses.replace(
        config.data,
        split_seed=config.seed if config.data.split_seed is None else config.data.split_seed,
        bootstrap=k if ensemble.bootstrap else None,
    )
    models = (config.model, *ensemble.models)
    return dataclasses.replace(
        config,
        model=models[k % len(models)],
        data=data,
        seed=(config.seed + SEEDS * k) % 2**32,
        training=dataclasses.replace(config.training, uncertainty=None),
        ensemble=None,
    )


def join(members: list[Potential], config: TrainConfig, beginning: Beginning, out: Path, console: Console) -> Path:
    """Join the members and calibrate the committee on the validation frames, where there are enough; write best.eqp."""
    every = lambda frames: [frame for k in range(len(frames)) if not is_isolated_atom(frame := frames[k])]
    known, valid = every(beginning.dataset.train), every(beginning.dataset.valid)
    settings = config.training.uncertainty or UncertaintyConfig()
    potential = committee(members)
    enough = len(valid) >= FEWEST
    console.say(
        f"committee of {len(members)}: statistics of {len(known)} training frames, "
        + (f"calibration on {len(valid)} validation frames" if enough else "no calibration, for want of validation frames")
    )
    # The labels are those of the data less the method that is subtracted.
    made = fit_uncertainty(
        potential.correction, known, valid if enough else None, settings.method_for(potential), settings.calibrator,
        config.training.valid_batch_size,
        rests_on=f"{len(known)} training frames",
    )  # fmt: skip
    eqp.save(potential.replace(posterior=made.posterior), out / "best.eqp")
    return out / "best.eqp"


def report(best: Path, config: TrainConfig, beginning: Beginning, out: Path, console: Console, facts: dict[str, str]) -> None:
    """Write errors.json, report.md and train.html of the committee, with what is calibrated."""
    potential, dataset = eqp.load(best).correction, beginning.dataset
    sets = {"validation": dataset.valid, "test": dataset.test}
    found = evaluate_sets(potential, sets, config.training.valid_batch_size)
    write_json({name: table for name, (table, _) in found.items()}, out / "errors.json")
    results = {name: (table, sets[name], predictions) for name, (table, predictions) in found.items()}
    facts = {"members": str(len(potential.term.members)), **facts}
    calibrated = [row.name for row in potential.deviations if row.deviation_of]
    facts["calibrated"] = ", ".join(calibrated) or "nothing"
    text = write_report(out, facts, results, console.say, dataset.atomic_energies)
    if text:
        console.say(text)
    console.say(f"report: {out / 'report.md'} and {PAGE}")
