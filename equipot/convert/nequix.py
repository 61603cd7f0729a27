"""Nequix files (Koker, Kotak and Smidt, arXiv:2508.16067) as equipot's NequIP.

A ``.nqx`` file is one line of JSON, then the arrays of the model one after the other in NumPy's format. Nequix is NequIP with a
normalisation before each gate; its first layer acts on one-hot species, which here are the embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import e3nn_jax as e3nn
import numpy as np

from equipot.models.nequip import NaturalParity, NequIP, PerSpecies, Shared
from equipot.nn.features import regroup
from equipot.nn.gate import gated_irreps
from equipot.nn.normalize import MeanNeighbors, RMSNorm
from equipot.nn.radial import SILU_SCALE, Bessel, PolynomialEnvelope, Radial
from equipot.potential import Metadata, Potential

NEEDED = (
    "atomic_numbers", "cutoff", "hidden_irreps", "lmax", "n_layers", "radial_basis_size", "radial_mlp_size",
    "radial_mlp_layers", "radial_polynomial_p", "index_weights", "layer_norm", "shift", "scale", "avg_n_neighbors",
)  # fmt: skip
SILU = 1.6765648126602173
"""What e3nn-jax multiplies SiLU with in a gate: its estimate of 1 / sqrt(E[silu(x)^2]) in single precision."""
LONGEST_HEADER = 10**6


def recognise(path: Path) -> bool:
    """Whether a file begins with the settings of a Nequix model."""
    return _header(path) is not None


def _header(path: Path) -> tuple[dict[str, Any], int] | None:
    """The settings in the first line and its length."""
    with open(path, "rb") as file:
        line = file.readline(LONGEST_HEADER)
    try:
        config = json.loads(line)
    except ValueError:
        return None
    return (config, len(line)) if isinstance(config, dict) and "hidden_irreps" in config else None


def build(path: Path) -> Potential:
    """The potential in a ``.nqx`` file, in double precision.

    Raises:
        ValueError: the file is cut short, or has settings that cannot be converted.
    """
    config, start = _header(path)
    if missing := [key for key in NEEDED if key not in config]:
        raise ValueError(f"the header of this Nequix file lacks {', '.join(missing)}; save it again with nequix 0.4")
    term = read_term(config)
    with open(path, "rb") as file:
        file.seek(start)
        return Potential(term, *read_variables(term, config, file))


def read_term(config: dict[str, Any]) -> NequIP:
    """
    Raises:
        ValueError: irreps that are not one width for each l, of natural parity.
    """
    hidden, l_max = regroup(config["hidden_irreps"]), config["lmax"]
    if sorted(hidden) != sorted(e3nn.Irrep(l, (-1) ** l) for l in range(l_max + 1)):
        raise ValueError(f"hidden_irreps {config['hidden_irreps']} are not one each of l = 0..{l_max} with natural parity")
    p = config["radial_polynomial_p"]
    if p != int(p):
        raise ValueError(f"radial_polynomial_p {p} is not a whole number")
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
            PolynomialEnvelope(int(p)),
            mlp=(config["radial_mlp_size"],) * config["radial_mlp_layers"],
        ),
        self_connection=PerSpecies() if config["index_weights"] else Shared(),
        normalization=MeanNeighbors(0.5),
        layer_norm=RMSNorm() if config["layer_norm"] else None,
        readout=None,
    )


def read_variables(term: NequIP, config: dict[str, Any], file: BinaryIO) -> tuple[dict[str, Any], Metadata]:
    """Variables and free-atom energies, from the arrays in their order."""
    count = len(term.elements)

    def take(*shape: int) -> np.ndarray:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"cut short or damaged: an array of shape {shape} should follow ({error})") from None
        if array.shape != shape or array.dtype.kind != "f":
            raise ValueError(f"an array of shape {shape} should follow, not {array.dtype} {array.shape}")
        return array.astype(np.float64)

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
    """Parameters of one layer from features ``x`` to ``after``; the file's features are ``gain`` times ours."""
    entering = regroup(gated_irreps(after))
    paths = term.paths(x, entering)
    produced = {ir: sum(x[path.ir_in] for path in paths if path.ir_out == ir) for ir in entering}
    sizes = [term.radial.basis.n, *term.radial.mlp, sum(x[path.ir_in] for path in paths)]
    shapes = list(zip(sizes[:-1], sizes[1:], strict=True))
    # Their radial network has no constants at all; the basis has 2/c in front, ours sqrt(2/c).
    factors = [np.sqrt(2 / term.cutoff), *[1 / SILU_SCALE] * (len(shapes) - 1)]
    radial = {f"w{k}": f * np.sqrt(fan) * take(fan, out) for k, (f, (fan, out)) in enumerate(zip(factors, shapes, strict=True))}
    species = (len(term.elements),) if isinstance(term.self_connection, PerSpecies) else ()
    params = {
        "convolution": {"radial": radial},
        "up": {f"w{ir}": gain * take(mul, mul) for ir, mul in x.items()},
        "down": {f"w{ir}": take(produced[ir], mul) for ir, mul in entering.items()},
        "self": {f"w{ir}": gain * take(*species, x[ir], mul) for ir, mul in entering.items() if ir in x},
    }
    if term.layer_norm is not None:
        params["norm"] = {f"w{ir}": take(mul) for ir, mul in entering.items()}
    return params
