"""Checkpoints of other programs as potentials of equipot, without those programs and without running anything in the files."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from flax.traverse_util import flatten_dict

import equipot
from equipot.convert import mace_torch, nequip, nequip_package, nequix, sevennet, torch_file
from equipot.models import shapes
from equipot.potential import Potential

TORCH = {"SevenNet": sevennet, "MACE": mace_torch, "NequIP": nequip}
"""Programs whose checkpoints are torch files."""
CLASSES = ("mace", "e3nn", "torch")
"""Packages whose classes may stand in a file, as names and data; nothing of them is imported."""


def convert(source: str | Path, head: str | None = None) -> Potential:
    """The potential in a checkpoint of another program, in double precision.

    Read are those of SevenNet (``.pth``), MACE (``.model``), Nequix (``.nqx``) and NequIP since 0.7 (``.ckpt``, and packages,
    ``.nequip.zip``); of NequIP's the averaged weights (EMA) where there are any, with which it computes itself.
    ``head`` chooses the level of theory where a model has several: MACE's head (without it, all are kept), SevenNet's modality
    (which has to be chosen). The metadata record the file's name, SHA-256 and precision.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not such a checkpoint, is damaged, holds anything but plain data, or uses something that
            cannot be converted; the message says what.
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
    """The program that wrote a checkpoint, its potential and its precision."""
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
    """
    Raises:
        ValueError: the variables are not those that the term has; what is missing or different is named.
    """
    expected = shapes(potential.term)
    found = {path: leaf.shape for path, leaf in flatten_dict(potential.variables, sep="/").items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            raise ValueError(f"{name} has the shape {found.get(name)} in the checkpoint, but {expected.get(name)} is needed")
