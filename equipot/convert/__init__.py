"""Conversion of other programs' checkpoints to potentials of equipot, without these programs and without running their code."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from flax.traverse_util import flatten_dict

import equipot
from equipot.convert import mace_torch, nequip, nequip_package, nequix, sevennet, torch_file
from equipot.models import shapes
from equipot.potential import Potential

__all__ = ["convert"]

TORCH = {"SevenNet": sevennet, "MACE": mace_torch, "NequIP": nequip}
"""Readers of checkpoints that are torch files, by program."""
CLASSES = ("mace", "e3nn", "torch")
"""Packages whose classes a file may name; they are read as inert ``Record``, and the packages are not imported."""


def convert(source: str | Path, head: str | None = None) -> Potential:
    """Convert a checkpoint of another program to a potential in double precision.

    Checkpoints of SevenNet (``.pth``), MACE (``.model``), Nequix (``.nqx``) and NequIP since 0.7 (``.ckpt``, and packages,
    ``.nequip.zip``) can be converted. From a NequIP checkpoint with averaged weights (EMA) the averages are taken, with which
    NequIP itself predicts. The metadata record the file's name, SHA-256 and precision.

    Args:
        source: Path of the checkpoint.
        head: Level of theory of a model with several: a head of MACE (with None, all heads are converted), or a modality of
            SevenNet (required).

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a checkpoint of these programs, is damaged, holds more than plain data, or uses a feature
            that cannot be converted; the message says which.
    """
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a checkpoint, such as checkpoint.pth or model.nqx")
    try:
        program, potential, dtype = _read(path, head)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        said = torch_file.printable(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path}: not a checkpoint as its program writes it ({said})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {torch_file.printable(str(error).removeprefix(f'{path}: '))}") from error
    check_shapes(potential)
    facts = (("program", program), ("source", path.name), ("source_sha256", hashlib.sha256(path.read_bytes()).hexdigest()))
    metadata = dataclasses.replace(
        potential.metadata,
        version=equipot.__version__,
        dtype=dtype,
        extra=(*facts, *((("head", head),) if head else ()), *potential.metadata.extra),
    )
    return potential.replace(metadata=metadata)


def _read(path: Path, head: str | None) -> tuple[str, Potential, str]:
    """Read a checkpoint; return the program that wrote the checkpoint, the potential, and the precision of its weights."""
    if nequix.recognise(path):
        if head is not None:
            raise ValueError(f"head {head!r}: Nequix has only one level of theory; leave the head out")
        return "Nequix", nequix.build(path), "float32"
    if nequip_package.recognise(path):
        return "NequIP", *nequip_package.build(path, head)
    content = torch_file.load(path, CLASSES)
    for program, module in TORCH.items():
        if module.recognise(content):
            return program, module.build(content, head), module.precision(content)
    found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else f"a {type(content).__name__}"
    raise ValueError(f"a torch file with {found}: no checkpoint of {' or '.join(TORCH)} as known here")


def check_shapes(potential: Potential) -> None:
    """Check the shapes of a potential's variables against its term.

    Raises:
        ValueError: a variable is missing, not a variable of the term, or has another shape; the message names the variable.
    """
    expected = shapes(potential.term)
    found = {path: leaf.shape for path, leaf in flatten_dict(potential.variables, sep="/").items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            raise ValueError(f"{name} has the shape {found.get(name)} in the checkpoint, but {expected.get(name)} is needed")
