"""How e3nn (torch) arranges what enters and leaves a layer of NequIP, beside our own order."""

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
    """What leaves a gate of e3nn over what leaves ours: e3nn's activations are larger by a constant."""
    return {ir: TANH / TANH_SCALE if (ir.l, ir.p) == (0, -1) else SILU / SILU_SCALE for _, ir in irreps}


class Entering(NamedTuple):
    """What enters a gate in the file."""

    irreps: e3nn.Irreps
    order: np.ndarray
    """Where our even scalars stand: those that stay, then gates in the order of our irreps."""


def entering(after: e3nn.Irreps) -> Entering:
    """For ``after``, in the file's order, to come out."""
    kept = sum(mul for mul, ir in after if ir == EVEN)
    gated = [(mul, ir) for mul, ir in after if ir.l > 0]
    gates = e3nn.Irreps([(sum(mul for mul, _ in gated), EVEN)] if gated else [])
    scalars = e3nn.Irreps([(mul, ir) for mul, ir in after if ir.l == 0])
    return Entering(join(scalars + gates + e3nn.Irreps(gated)), gate_order(kept, gated))


def join(irreps: e3nn.Irreps) -> e3nn.Irreps:
    """Equal irreps together, in the order of e3nn (torch)."""
    found = {ir: sum(mul for mul, other in irreps if other == ir) for _, ir in irreps}
    return e3nn.Irreps([(found[ir], ir) for ir in torch_order(found)])


def gate_order(kept: int, gated: list[tuple[int, e3nn.Irrep]]) -> np.ndarray:
    """Where our even scalars before the gate stand in the file: those that stay, then gates in the order of our irreps."""
    starts = np.cumsum([kept, *(mul for mul, _ in gated)])
    blocks = {ir: np.arange(start, start + mul) for start, (mul, ir) in zip(starts, gated, strict=False)}
    return np.concatenate([np.arange(kept), *(blocks[ir] for ir in sorted(blocks))])


class Stored(NamedTuple):
    """A convolution as the file has it."""

    rows: dict[Path, np.ndarray]
    """Of each path among the channels of its output irrep."""
    columns: dict[Path, np.ndarray]
    """Of each path among the radial weights."""
    irreps: e3nn.Irreps
    """What it produces."""


def stored_paths(term: NequIP, x: e3nn.Irreps, keep: Callable[[e3nn.Irrep], bool], sorted_columns: bool) -> Stored:
    """The convolution of features ``x`` into the irreps that ``keep`` wants.

    ``sorted_columns`` says that radial weights stand in the order of the outputs rather than of the inputs.
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
    """The paths of our convolution in the order of its weights."""
    return term.paths(sorted(ir for _, ir in x), regroup(gated_irreps(str(after))))


def our_rows(paths: list[Path], stored: Stored) -> dict[e3nn.Irrep, np.ndarray]:
    """For each irrep that our convolution produces, where its channels stand in the file."""
    return {ir: np.concatenate([stored.rows[p] for p in paths if p.ir_out == ir]) for ir in {p.ir_out for p in paths}}


def signs(weights: Weights, stem: str, paths: list[Path]) -> list[float]:
    """What the coupling coefficients in the file, where it has them, differ by from ours."""
    name = lambda path: f"{stem}{path.ir_in.l}_{path.l_edge}_{path.ir_out.l}"
    return [sign(path, weights.left[name(path)]) if name(path) in weights else 1.0 for path in paths]


def our_columns(last: np.ndarray, signs: list[float], columns: list[np.ndarray], name: str) -> np.ndarray:
    """The last matrix of a radial network with its columns in our order, and our signs.

    Raises:
        ValueError: the file has another number of columns.
    """
    needed = 1 + max(where.max() for where in columns)
    if last.shape[1] != needed:
        raise ValueError(f"{name} has {last.shape[1]} outputs, but the irreps need {needed}")
    return np.concatenate([s * last[:, where] for s, where in zip(signs, columns, strict=True)], axis=1)
