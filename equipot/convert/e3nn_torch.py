"""Conventions of e3nn (torch) in checkpoints that differ from equipot's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import e3nn_jax as e3nn
import numpy as np

from equipot.kernels.convolution_forms import coupling
from equipot.nn.tensor_product import Path

SILU = 1.6791767923989418
"""Factor of SiLU in e3nn: an estimate of 1 / sqrt(E[silu(x)^2]), x ~ N(0, 1), from random numbers."""
TANH = 1.5937334472592695
"""Factor of tanh in e3nn: an estimate of 1 / sqrt(E[tanh(x)^2]), x ~ N(0, 1), from random numbers."""


def torch_order(irreps: Iterable[e3nn.Irrep]) -> list[e3nn.Irrep]:
    """Sort irreps as e3nn (torch): by l, then odd before even. e3nn-jax sorts by l, then parity (-1)^l first."""
    return sorted(irreps, key=lambda ir: (ir.l, ir.p))


def linear(flat: np.ndarray, irreps_in: str | e3nn.Irreps, irreps_out: str | e3nn.Irreps) -> dict[e3nn.Irrep, np.ndarray]:
    """Split the weights of an ``e3nn.o3.Linear`` into a matrix [inputs, outputs] for each irrep, times 1 / sqrt(fan_in).

    Args:
        flat: Weights, one block for every pair of equal input and output irreps, by input and then by output.
        irreps_in: Input irreps.
        irreps_out: Output irreps.

    Raises:
        ValueError: the number of weights does not fit the irreps.
    """
    source, target = e3nn.Irreps(irreps_in), e3nn.Irreps(irreps_out)
    needed = sum(mul * mul_out for mul, ir in source for mul_out, ir_out in target if ir == ir_out)
    if needed != flat.size:
        raise ValueError(f"a linear map from {source} to {target} needs {needed} weights, but the file has {flat.size}")
    start, out = 0, {}
    rows: dict[e3nn.Irrep, list[np.ndarray]] = {}
    for mul, ir in source:
        blocks = []
        for mul_out, ir_out in target:
            if ir_out == ir:
                blocks.append(flat[start : start + mul * mul_out].reshape(mul, mul_out))
                start += mul * mul_out
        if blocks:
            rows.setdefault(ir, []).append(np.concatenate(blocks, axis=1))
    for ir, parts in rows.items():
        matrix = np.concatenate(parts)
        out[ir] = matrix / np.sqrt(len(matrix))
    return out


def sign(path: Path, stored: np.ndarray) -> float:
    """Return the sign, 1 or -1, of the Wigner 3j symbol of a checkpoint relative to equipot's.

    Args:
        path: Path with the degrees of the symbol.
        stored: Symbol of the checkpoint, [m_in, m_edge, m_out].

    Raises:
        ValueError: the symbols differ by more than a sign.
    """
    ours = coupling(path.ir_in.l, path.l_edge, path.ir_out.l) / np.sqrt(path.ir_out.dim)
    stored = stored / np.linalg.norm(stored) * np.linalg.norm(ours)
    found = 1.0 if np.sum(stored * ours) > 0 else -1.0
    if not np.allclose(stored, found * ours, atol=1e-5):
        name = f"{path.ir_in.l} {path.l_edge} {path.ir_out.l}"
        raise ValueError(f"the Wigner 3j symbol {name} of the file is that of no known e3nn")
    return found


class Weights:
    """The tensors of a checkpoint, each to be taken once; ``left`` holds the tensors that were not taken yet."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.left = {name: np.asarray(value) for name, value in tensors.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def __iter__(self) -> Iterator[str]:
        return iter(self.left)

    def take(self, name: str) -> np.ndarray:
        """Remove a tensor from ``left`` and return the tensor in double precision.

        Raises:
            ValueError: the checkpoint has no such tensor, or the tensor was taken before.
        """
        if name not in self.left:
            raise ValueError(f"the checkpoint has no tensor {name}")
        return self.left.pop(name).astype(np.float64)


def parameters(matrices: Mapping[e3nn.Irrep, np.ndarray], bias: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Make the parameters of ``nn.features.Linear`` from matrices; with a leading species axis, of ``SpeciesLinear``."""
    out = {f"w{ir}": matrix * np.sqrt(matrix.shape[-2]) for ir, matrix in matrices.items()}
    return out if bias is None else {**out, "b": bias}
