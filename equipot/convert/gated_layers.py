"""Order of features, paths and gates in a layer of NequIP in e3nn (torch), relative to the order in equipot."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot.convert.e3nn_torch import SILU, TANH, Weights, sign, torch_order
from equipot.models.nequip import NequIP
from equipot.nn.features import regroup
from equipot.nn.gate import TANH_SCALE, gated_irreps
from equipot.nn.radial import SILU_SCALE
from equipot.nn.tensor_product import Path

EVEN = e3nn.Irrep("0e")


def gains(irreps: e3nn.Irreps) -> dict[e3nn.Irrep, float]:
    """Return the ratio of the output of a gate of e3nn to the output of equipot's gate, by irrep."""
    return {ir: TANH / TANH_SCALE if (ir.l, ir.p) == (0, -1) else SILU / SILU_SCALE for _, ir in irreps}


class Entering(NamedTuple):
    """Input of a gate in the file."""

    irreps: e3nn.Irreps
    """Irreps of the input, in the file's order."""
    order: np.ndarray
    """Channels in the file of equipot's even scalars, see ``gate_order``."""


def entering(after: e3nn.Irreps) -> Entering:
    """Return the input of a gate whose output irreps, in the file's order, are ``after``."""
    kept = sum(mul for mul, ir in after if ir == EVEN)
    gated = [(mul, ir) for mul, ir in after if ir.l > 0]
    gates = e3nn.Irreps([(sum(mul for mul, _ in gated), EVEN)] if gated else [])
    scalars = e3nn.Irreps([(mul, ir) for mul, ir in after if ir.l == 0])
    return Entering(join(scalars + gates + e3nn.Irreps(gated)), gate_order(kept, gated))


def join(irreps: e3nn.Irreps) -> e3nn.Irreps:
    """Merge equal irreps and sort in the order of e3nn (torch)."""
    found = {ir: sum(mul for mul, other in irreps if other == ir) for _, ir in irreps}
    return e3nn.Irreps([(found[ir], ir) for ir in torch_order(found)])


def gate_order(kept: int, gated: list[tuple[int, e3nn.Irrep]]) -> np.ndarray:
    """Return the channels in the file of equipot's even scalars before a gate.

    Args:
        kept: Number of scalars that are not gates; they come first in both orders.
        gated: Multiplicities and irreps with l > 0 in the file's order, each channel of which has a gate.
    """
    starts = np.cumsum([kept, *(mul for mul, _ in gated)])
    blocks = {ir: np.arange(start, start + mul) for start, (mul, ir) in zip(starts, gated, strict=False)}
    return np.concatenate([np.arange(kept), *(blocks[ir] for ir in sorted(blocks))])


class Stored(NamedTuple):
    """Order of a convolution in the file."""

    rows: dict[Path, np.ndarray]
    """Channels of each path among the channels of its output irrep."""
    columns: dict[Path, np.ndarray]
    """Columns of each path among the radial weights."""
    irreps: e3nn.Irreps
    """Output irreps."""


def stored_paths(term: NequIP, x: e3nn.Irreps, keep: Callable[[e3nn.Irrep], bool], sorted_columns: bool) -> Stored:
    """Return the order in the file of a convolution.

    Args:
        term: Architecture.
        x: Input irreps, in the file's order.
        keep: Function that selects output irreps.
        sorted_columns: Whether radial weights are in the order of the outputs rather than of the inputs.
    """
    loop = [
        (Path(ir, l, out), mul)
        for mul, ir in x
        for l in range(term.l_max + 1)
        for out in ir * e3nn.Irrep(l, term.parity.odd**l)
        if keep(out)
    ]
    rows: dict[Path, np.ndarray] = {}
    count: dict[e3nn.Irrep, int] = {}
    for path, mul in loop:
        start = count.get(path.ir_out, 0)
        rows[path] = np.arange(start, start + mul)
        count[path.ir_out] = start + mul
    order = torch_order(count)
    stored = sorted(loop, key=lambda item: order.index(item[0].ir_out)) if sorted_columns else loop
    ends = np.cumsum([mul for _, mul in stored])
    columns = {path: np.arange(end - mul, end) for (path, mul), end in zip(stored, ends, strict=True)}
    return Stored(rows, columns, e3nn.Irreps([(count[ir], ir) for ir in order]))


def our_paths(term: NequIP, x: e3nn.Irreps, after: e3nn.Irreps) -> list[Path]:
    """List the paths of equipot's convolution in the order of its radial weights."""
    return term.paths(sorted(ir for _, ir in x), regroup(gated_irreps(str(after))))


def our_rows(paths: list[Path], stored: Stored) -> dict[e3nn.Irrep, np.ndarray]:
    """Return the channels in the file of each output irrep of equipot's convolution, in equipot's order."""
    return {ir: np.concatenate([stored.rows[p] for p in paths if p.ir_out == ir]) for ir in {p.ir_out for p in paths}}


def signs(weights: Weights, stem: str, paths: list[Path]) -> list[float]:
    """Return the signs of coupling coefficients in the file relative to equipot's; 1 for coefficients that the file lacks."""
    name = lambda path: f"{stem}{path.ir_in.l}_{path.l_edge}_{path.ir_out.l}"
    return [sign(path, weights.left[name(path)]) if name(path) in weights else 1.0 for path in paths]


def our_columns(last: np.ndarray, signs: list[float], columns: list[np.ndarray], name: str) -> np.ndarray:
    """Reorder the columns of the last matrix of a radial network to equipot's order, with the sign of each path.

    Args:
        last: Matrix in the file, [hidden, columns].
        signs: Sign of each path, in equipot's order.
        columns: Columns of each path in the file, in equipot's order.
        name: Name of the network, for the error message.

    Raises:
        ValueError: the matrix has another number of columns.
    """
    needed = 1 + max(where.max() for where in columns)
    if last.shape[1] != needed:
        raise ValueError(f"{name} has {last.shape[1]} outputs, but the irreps need {needed}")
    return np.concatenate([s * last[:, where] for s, where in zip(signs, columns, strict=True)], axis=1)
