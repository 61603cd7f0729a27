"""Files of potentials, ``NAME.eqp``: arrays of variables, and a record of the term's hyper-parameters and the metadata.

A term class from outside equipot is stored as ``package.module:Class``, and reading the file imports that installed module:
load such a file only if you trust the module.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from equipot import config, earlier
from equipot.artifact import Content, DamagedError, Kind, digest, named_leaves
from equipot.metadata import Head, Metadata, Method
from equipot.posterior import Calibration, Posterior, Statistics, UncertaintyMethod, variables_digest
from equipot.potential import Potential
from equipot.term import Term

__all__ = ["load", "save"]

POTENTIAL = Kind("potential", ".eqp file", 3, "copy or write it again")
POSTERIOR = "posterior"
"""First part of the names of arrays of the posterior, beside those of the collections of variables."""
STALE = (
    "the estimate of uncertainty belongs to other variables than those of this potential, and says nothing about them; make it "
    "anew by `equipot uncertainty`"
)
FOREIGN = (".pth", ".pt", ".model", ".nqx", ".ckpt", ".zip")
"""Suffixes of checkpoints of other programs."""


def save(potential: Potential, path: str | Path) -> None:
    """Write a potential to one ``.eqp`` file.

    Raises:
        ValueError: the heads in the metadata are not those of the term.
        OSError: the disk is full or the folder is missing; an older file at ``path`` is kept.
    """
    described = tuple(head.name for head in potential.metadata.heads)
    if described != potential.heads:
        raise ValueError(
            f"the term has the heads {', '.join(potential.heads) or 'none'}, the metadata describe "
            f"{', '.join(described) or 'none'}; give metadata.heads one Head for each, in this order"
        )
    record = {"term": config.dump(potential.term), "metadata": dataclasses.asdict(potential.metadata)}
    arrays = flatten_dict(potential.variables, sep="/")
    if (posterior := potential.posterior) is not None:
        if posterior.variables_sha256 != variables_digest(potential.variables):
            raise ValueError(STALE)
        record[POSTERIOR], own = _written(posterior)
        arrays |= flatten_dict({POSTERIOR: own}, sep="/")
    POTENTIAL.write(path, record, arrays)


def sha256_of(potential: Potential) -> str:
    """Compute the SHA-256 of the term, the metadata and the variables of a potential."""
    text = json.dumps([config.dump(potential.term), dataclasses.asdict(potential.metadata)], sort_keys=True)
    return digest(text, named_leaves(potential.variables))


def load(path: str | Path, dtype: Any = None) -> Potential:
    """Read a potential from an ``.eqp`` file.

    Args:
        dtype: "float32" or "float64" (which switches JAX to 64 bits); None for the precision in the metadata, else that of the
            stored arrays.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ``.eqp`` file, cut short, altered, written by a newer version, or a file of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the .eqp file of a potential, such as RUN/best.eqp")
    try:
        content = POTENTIAL.read(path)
    except DamagedError:
        if path.suffix in FOREIGN:
            command = f"equipot convert {path} -o {path.with_suffix('.eqp').name}"
            raise ValueError(f"{path}: not an .eqp file; convert a checkpoint of another program first: {command}") from None
        raise
    try:
        potential = _potential(content, str(path))
        if POSTERIOR in content.record:
            potential = potential.replace(posterior=_posterior(content, str(path)))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a potential as equipot writes it ({type(error).__name__}: {error})") from error
    if potential.posterior is not None and potential.posterior.variables_sha256 != variables_digest(potential.variables):
        raise ValueError(f"{path}: {STALE}")
    double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(potential.variables))
    return potential.astype(dtype or potential.metadata.dtype or ("float64" if double else "float32"))


def _potential(content: Content, path: str) -> Potential:
    term, arrays = content.record["term"], content.arrays
    if content.format == 1:
        arrays = {earlier.path_of_1(name, term): value for name, value in arrays.items()}
        term = earlier.term_of_1(term)
    # Not arrays of JAX, which would be rounded to single precision where 64 bits are not switched on yet.
    variables = unflatten_dict(arrays, sep="/")
    variables.pop(POSTERIOR, None)
    return Potential(config.build(Term, term, path), variables, _metadata(content.record["metadata"]))


def _metadata(fields: dict[str, Any]) -> Metadata:
    energies = lambda pairs: tuple((int(z), float(e)) for z, e in pairs)
    heads = [Head(**{**head, "atomic_energies": energies(head["atomic_energies"])}) for head in fields["heads"]]
    pairs = {
        "atomic_energies": energies(fields["atomic_energies"]),
        "extra": tuple((str(key), str(value)) for key, value in fields["extra"]),
        "heads": tuple(heads),
        # Files that were written before have no such record.
        **{name: tuple(map(float, fields.get(name, ()))) for name in ("charges", "spins")},
        "subtracted": None if (method := fields.get("subtracted")) is None else _method(method),
    }
    return Metadata(**{**fields, **pairs})


def _method(fields: dict[str, Any]) -> Method:
    versions = tuple((str(package), str(version)) for package, version in fields["versions"])
    return Method(str(fields["calculator"]), str(fields["options"]), versions)


def _written(posterior: Posterior) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return record and arrays of a posterior."""
    known = posterior.calibrations.items()
    record = {
        "method": config.dump(posterior.method),
        "variables_sha256": posterior.variables_sha256,
        "rests_on": posterior.rests_on,
        "calibrations": {name: {"frames": c.frames, "data": c.data} for name, c in known},
    }
    kept = ("scale", "power", "floor", "quantiles")
    calibrations = {name: {field: getattr(c, field) for field in kept} for name, c in known}
    return record, {"sums": posterior.statistics.arrays, "arrays": posterior.arrays, "calibrations": calibrations}


def _posterior(content: Content, path: str) -> Posterior:
    record, held = content.record[POSTERIOR], unflatten_dict(content.arrays, sep="/")[POSTERIOR]
    kept = held.get("calibrations", {})
    # Files of the first version of this part have no floors.
    calibrations = {
        name: Calibration(
            **{"floor": np.zeros_like(kept[name]["scale"]), **kept[name]},
            frames=tuple(map(int, said["frames"])),
            data=said["data"],
        )
        for name, said in record["calibrations"].items()
    }
    method = config.build(UncertaintyMethod, record["method"], path)
    sums = Statistics(held["sums"])
    return Posterior(method, sums, held["arrays"], calibrations, record["variables_sha256"], record["rests_on"])
