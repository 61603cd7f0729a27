"""Conversion of Nequix files (Koker, Kotak and Smidt, arXiv:2508.16067) to equipot's NequIP.

A ``.nqx`` file is one line of JSON, then the arrays of the model one after the other in NumPy's format. Nequix is NequIP with a
normalisation before each gate. Its first layer acts on one-hot species: the embedding of the converted model is the unit
matrix.
"""

from __future__ import annotations

import io
import json
import math
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import e3nn_jax as e3nn
import jax
import numpy as np

from equipot.metadata import Metadata
from equipot.models.nequip import NaturalParity, NequIP, PerSpecies, Shared
from equipot.nn.features import regroup
from equipot.nn.gate import gated_irreps
from equipot.nn.normalize import MeanNeighbors, RMSNorm
from equipot.nn.radial import SILU_SCALE, Bessel, PolynomialEnvelope, Radial
from equipot.potential import Potential
from equipot.term import cutoff_of

COUNTS = {"n_layers": (1, 100), "lmax": (0, 11), "radial_basis_size": (1, 10**4), "radial_mlp_size": (1, 10**5),
          "radial_mlp_layers": (0, 100), "radial_polynomial_p": (2, 100)}  # fmt: skip
"""Integer settings of the model, with the smallest and the largest value that is accepted."""
POSITIVE = ("cutoff", "avg_n_neighbors")
"""Settings that must be positive numbers."""
NEEDED = (*COUNTS, *POSITIVE, "shift", "scale", "index_weights", "layer_norm", "atomic_numbers", "hidden_irreps")
"""Settings that a file must have."""
WITHOUT_EFFECT = {
    "atom_energies", "avg_n_edges", "avg_n_nodes", "batch_size", "cache_dir", "checkpoint_grad_energy", "ema_decay",
    "energy_weight", "extra_energy_weight", "extra_force_weight", "extra_stress_weight", "extra_train_path",
    "extra_train_steps", "extra_val_frac", "extra_val_path", "finetune_from", "force_weight", "grad_clip_norm",
    "hessian_weight", "kernel", "learning_rate", "log_every", "loss_type", "max_n_edges", "max_n_nodes", "mlp_init_scale",
    "n_epochs", "n_graph", "optimizer", "readout_initialization", "resume_from", "state_path", "stress_weight", "train_path",
    "val_every", "val_path", "valid_frac", "valid_path", "warmup_epochs", "warmup_factor", "weight_decay",
}  # fmt: skip
"""Settings of the training or the speed, or that follow from the arrays."""
SILU = 1.6765648126602173
"""Factor of SiLU in the gates of e3nn-jax: its estimate of 1 / sqrt(E[silu(x)^2]), x ~ N(0, 1), in single precision."""
LONGEST_HEADER = 10**6
"""Largest length of the first line that is read, in bytes."""


def recognise(path: Path) -> bool:
    """Return whether a file begins with the settings of a Nequix model."""
    return _header(path) is not None


def _header(path: Path) -> tuple[dict[str, Any], int] | None:
    """Read the settings in the first line, and the length of the line; None if the line holds no settings of Nequix."""
    with open(path, "rb") as file:
        line = file.readline(LONGEST_HEADER)
    try:
        config = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return (config, len(line)) if isinstance(config, dict) and "hidden_irreps" in config else None


def build(path: Path) -> Potential:
    """Convert a ``.nqx`` file to a potential in double precision.

    Raises:
        ValueError: the file is cut short, has bytes that are not part of the model, or has settings that cannot be converted.
    """
    header = _header(path)
    assert header is not None, "recognise said so"
    config, start = header
    check_settings(config)
    term = read_term(config)
    # Read from memory, where an array cannot be larger than the file.
    file = io.BytesIO(path.read_bytes()[start:])
    potential = Potential(term, *read_variables(term, config, file))
    check_end(config, file)
    return potential


def check_end(config: dict[str, Any], file: BinaryIO) -> None:
    """Check the end of a file: nothing, a line end (as in nequix-mp-1), or the numbers of the header (as in nequix-oam-1).

    Raises:
        ValueError: the file ends with other bytes.
    """
    start = file.tell()
    rest = file.read()
    file.seek(start)
    numbers = [leaf for leaf in jax.tree.leaves(config) if not isinstance(leaf, str)]
    try:
        known = rest in (b"", b"\n") or all(number == read_array(file, ()) for number in numbers) and not file.read()
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{len(rest)} bytes follow the last array of the model that its header describes; copy the file again")


def read_array(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """Read the next array of a file in double precision.

    Raises:
        ValueError: the file continues with another shape or type of array, or is cut short.
    """
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not version 1.0 of NumPy's format")
        found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, EOFError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(f"cut short or damaged: an array of shape {shape} should follow ({error})") from None
    if found != shape or dtype.kind not in ("f" if shape else "fib"):
        raise ValueError(f"an array of shape {shape} should follow, not {dtype} {found}")
    size = math.prod(shape) * dtype.itemsize
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f"cut short in an array of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(np.float64)


def check_settings(config: dict[str, Any]) -> None:
    """Check the settings in the header.

    Raises:
        ValueError: a setting is missing, unknown or out of range.
    """
    if missing := [key for key in NEEDED if key not in config]:
        raise ValueError(f"the header of this Nequix file lacks {', '.join(missing)}; save it again with nequix 0.4")
    if unknown := sorted(set(config) - WITHOUT_EFFECT - set(NEEDED)):
        raise ValueError(f"Nequix's {unknown[0]} is not known here: with it the potential might be another")
    for key in (*COUNTS, *POSITIVE, "shift", "scale"):
        value = config[key]
        if type(value) not in (int, float) or not abs(value) < 1e9:
            raise ValueError(f"Nequix's {key} is not a number that is finite and below 1e9")
        least, greatest = COUNTS.get(key, (value, value))
        if not least <= value <= greatest or (key in COUNTS and value != int(value)):
            raise ValueError(f"Nequix's {key} {value} is not a whole number from {least} to {greatest}")
        if key in POSITIVE and value <= 0:
            raise ValueError(f"Nequix's {key} {value} must be above 0")
    numbers = config["atomic_numbers"]
    if not isinstance(numbers, list) or not numbers or any(type(z) is not int for z in numbers):
        raise ValueError("Nequix's atomic_numbers are not a list of whole numbers")
    if not isinstance(config["hidden_irreps"], str):
        raise ValueError("Nequix's hidden_irreps are not a text such as '128x0e + 64x1o'")
    if wrong := [key for key in ("index_weights", "layer_norm") if type(config[key]) is not bool]:
        raise ValueError(f"Nequix's {wrong[0]} is neither true nor false")


def read_term(config: dict[str, Any]) -> NequIP:
    """Make the term from the settings in the header.

    Raises:
        ValueError: the hidden irreps are not one of natural parity for each l.
    """
    hidden, l_max = regroup(config["hidden_irreps"]), config["lmax"]
    if sorted(hidden) != sorted(e3nn.Irrep(l, (-1) ** l) for l in range(l_max + 1)):
        raise ValueError(f"hidden_irreps {config['hidden_irreps']} are not one each of l = 0..{l_max} with natural parity")
    return NequIP(
        elements=tuple(config["atomic_numbers"]),
        cutoff=float(config["cutoff"]),
        channels=tuple(hidden[ir] for ir in sorted(hidden)),
        l_max=l_max,
        parity=NaturalParity(),
        layers=config["n_layers"],
        embedding=len(config["atomic_numbers"]),
        radial=Radial(
            Bessel(config["radial_basis_size"]),
            PolynomialEnvelope(int(config["radial_polynomial_p"])),
            mlp=(config["radial_mlp_size"],) * config["radial_mlp_layers"],
        ),
        self_connection=PerSpecies() if config["index_weights"] else Shared(),
        normalization=MeanNeighbors(0.5),
        layer_norm=RMSNorm() if config["layer_norm"] else None,
        readout=None,
    )


def read_variables(term: NequIP, config: dict[str, Any], file: BinaryIO) -> tuple[dict[str, Any], Metadata]:
    """Read variables and isolated-atom energies (eV) from the arrays of a file, which have a fixed order."""
    count = len(term.elements)

    def take(*shape: int) -> np.ndarray:
        return read_array(file, shape)

    free = take(count) + config["shift"]
    params: dict[str, Any] = {"embedding": {"w": np.eye(count)}}
    x = {e3nn.Irrep("0e"): count}
    for layer in range(term.layers):
        after = term.features(x, last=layer == term.layers - 1)
        params[f"layer{layer}"] = read_layer(term, x, after, take, gain=SILU / SILU_SCALE if layer else 1.0)
        x = regroup(after)
    params["readout"] = {"out": {"w0": SILU / SILU_SCALE * take(x[e3nn.Irrep("0e")], 1)}}
    constants = {
        "avg_num_neighbors": np.array(float(config["avg_n_neighbors"])),
        "scale": np.full(count, float(config["scale"])),
        "shift": np.zeros(count),
    }
    energies = tuple(sorted(zip(term.elements, free.tolist(), strict=True)))
    return {"params": params, "constants": constants}, Metadata(atomic_energies=energies)


def read_layer(
    term: NequIP, x: dict[e3nn.Irrep, int], after: str, take: Callable[..., np.ndarray], gain: float
) -> dict[str, Any]:
    """Read the parameters of one layer.

    Args:
        term: Architecture.
        x: Number of channels of each input irrep.
        after: Output irreps.
        take: Function that reads the next array of a given shape.
        gain: Ratio of the input features in Nequix to equipot's.
    """
    entering = regroup(gated_irreps(after))
    paths = term.paths(x, entering)
    produced = {ir: sum(x[path.ir_in] for path in paths if path.ir_out == ir) for ir in entering}
    sizes = [term.radial.basis.n, *term.radial.mlp, sum(x[path.ir_in] for path in paths)]
    shapes = list(zip(sizes[:-1], sizes[1:], strict=True))
    # Nequix does not normalise the SiLU of the radial network; its basis has the prefactor 2/c, equipot's sqrt(2/c).
    factors = [np.sqrt(2 / cutoff_of(term)), *[1 / SILU_SCALE] * (len(shapes) - 1)]
    radial = {f"w{k}": f * np.sqrt(fan) * take(fan, out) for k, (f, (fan, out)) in enumerate(zip(factors, shapes, strict=True))}
    assert term.self_connection is not None
    species = term.self_connection.weight_axes(len(term.elements))
    params = {
        "convolution": {"radial": radial},
        "up": {f"w{ir}": gain * take(mul, mul) for ir, mul in x.items()},
        "down": {f"w{ir}": take(produced[ir], mul) for ir, mul in entering.items()},
        "self": {f"w{ir}": gain * take(*species, x[ir], mul) for ir, mul in entering.items() if ir in x},
    }
    if term.layer_norm is not None:
        params["norm"] = {f"w{ir}": take(mul) for ir, mul in entering.items()}
    return params
