"""How far a program is from the least time that its arithmetic and its memory traffic allow on these cores.

What is counted is an ideal algorithm for energy and forces of a MACE of two layers, of which the first sees species alone, with
float32 numbers: N atoms, E directed pairs, S species, C channels, H hidden radial features, M = (l_max + 1)^2 harmonics,
d(l) = 2 l + 1.
A product of matrices [a, b] [b, c] is 2abc FLOP, and as many again for the gradient with respect to its input; nothing is
computed twice, and no gradient by a weight at all.

    radial MLP      both layers' hidden widths, from the basis functions up, for each pair
    last layer      of layer 2 for each pair, H C for each path; that of layer 1 acts on sums over pairs (next line)
    convolution 1   sums of hidden features times harmonics over each atom's pairs by species, M H for each pair, forward and
                    twice backward; then the last radial layer and the species' features, N S M H C
    convolution 2   for each path (l1, l2, l3), with harmonics and couplings contracted to a matrix [d(l1), d(l3)] of each pair,
                    6 d(l1) d(l3) + 5 d(l1) for each pair and channel: message, and gradients by matrix, weight and sender
    contraction     as a polynomial with T non-zero terms and P products of two or more factors, 4 T + 5 P for each channel
    linear maps     of messages, features, bypasses and readouts, for each atom

A compressed potential has splines in the place of the radial MLP: 6 coefficients for value and slope, 24 for each pair, channel
and path of both layers, and convolution 1 is counted as convolution 2 is. Basis functions, harmonics, activations, couplings
and sums over atoms are left out: a few per cent.

Memory traffic is what has to be kept from one stage to the next, if everything else stays in the caches: vectors, harmonics and
hidden radial features of pairs, and each layer's features, messages, atomic basis and contraction of atoms. Each is written and
read, read again in the backward pass, and its gradient is written and read: five times 4 bytes. Parameters are read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import energy_forces, untrained
from benchmarks.measure import compiled, device, memory, timing
from benchmarks.peers.items import CUTOFF, ITEMS
from benchmarks.peers.systems import make
from equipot import config
from equipot.kernels.polynomial import monomials
from equipot.models.compress import compress
from equipot.models.mace import MACE, hidden_irreps
from equipot.nn.contraction import ZERO, basis
from equipot.nn.interaction import Plain
from equipot.nn.tensor_product import Path, find_paths
from equipot.structure import Structure

SPLINED = 6
"""Numbers of a pair by which its splines are weighted."""


def network_of(work: str) -> MACE:
    """The network of a work item, without elements."""
    network = ITEMS[work].network
    return MACE(cutoff=CUTOFF, channels=network["channels"], correlation=network["correlation"], first=Plain())


class Size(NamedTuple):
    """What work grows with."""

    atoms: int
    pairs: int
    species: int


def flop(term: MACE, size: Size) -> dict[str, float]:
    """FLOP of the ideal algorithm, by what it is for."""
    n, e, s = size
    c, harmonics, hidden = term.channels, (term.l_max + 1) ** 2, (term.hidden_l + 1) ** 2
    first, second = paths_of(term, 0), paths_of(term, term.hidden_l)
    product = lambda paths: float(e * c * sum(6 * d(p.ir_in.l) * d(p.ir_out.l) + 5 * d(p.ir_in.l) for p in paths))
    if term.radial.table is None:
        widths = (term.radial.basis.n, *term.radial.mlp)
        h, inner = widths[-1], sum(a * b for a, b in zip(widths, widths[1:], strict=False))
        radial = {"radial MLP": 8.0 * e * inner, "last radial layer": 4.0 * e * h * c * len(second)}
        start = 6.0 * e * harmonics * h + 4.0 * n * s * harmonics * h * c
    else:
        radial, start = {"splines": 24.0 * e * c * len(first + second)}, product(first)
    # Layer 1: down, by species, product; layer 2: up, down, product, bypass.
    matrices = 2 * harmonics + hidden + hidden + sum(d(p.ir_out.l) for p in second) + 1 + 1
    return radial | {
        "convolution 1": start,
        "convolution 2": product(second),
        "contraction": float(n * c * sum(polynomial(term, range(l + 1)) for l in (term.hidden_l, 0))),
        "linear maps": 4.0 * n * c * (c * matrices + sum(term.readout) + 1),
    }


def d(l: int) -> int:
    return 2 * l + 1


def paths_of(term: MACE, l_in: int) -> list[Path]:
    """Of a convolution of features with l <= ``l_in``."""
    irreps = lambda l: [ir for _, ir in e3nn.Irreps(hidden_irreps(1, l))]
    return find_paths(irreps(l_in), term.l_max, irreps(term.l_max))


def polynomial(term: MACE, degrees: Iterable[int]) -> int:
    """FLOP of one atom's and channel's symmetric contraction into l in ``degrees``, forward and backward."""
    irreps = e3nn.Irreps(hidden_irreps(1, term.l_max))
    terms, products = 0, set()
    for degree in range(1, term.each("correlation")[0] + 1):
        of_degree = monomials(irreps.dim, degree)
        for l in degrees:
            used = np.any(np.abs(basis(irreps, degree, e3nn.Irrep(l, (-1) ** l))) > ZERO, axis=1)
            terms += int(used.sum())
            products |= {of_degree[row] for row in np.nonzero(used.any(axis=1))[0] if degree > 1}
    return 4 * terms + 5 * len(products)


def traffic(term: MACE, size: Size, parameters: int) -> float:
    """Bytes of the ideal algorithm."""
    harmonics, hidden = (term.l_max + 1) ** 2, (term.hidden_l + 1) ** 2
    rows = sum(d(path.ir_out.l) for path in paths_of(term, term.hidden_l))
    features = 2 * term.radial.mlp[-1] if term.radial.table is None else SPLINED
    kept = size.pairs * (3 + harmonics + features)
    # Layer 1: messages, basis, contraction, features; layer 2: sent features, messages, basis, contraction, features.
    kept += size.atoms * term.channels * (2 * harmonics + 2 * hidden + hidden + rows + harmonics + 2)
    return 4.0 * (5 * kept + 2 * parameters)


def best(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Seconds of the fastest call, see ``fastest``."""
    return 1e-3 * fastest(timing(call, seconds))


def fastest(found: dict[str, float]) -> float:
    """Milliseconds by the wall or, where that is less, of the processor: of one core, others may have had the rest."""
    return min(found["wall_ms_min"], found["cpu_ms_min"])


def peaks() -> dict[str, float]:
    """GFLOP/s of float32 matrix products and GB/s of a pass over 256 MB that reads and writes, by numpy and by XLA."""
    n, long = 1536, 2**25
    a, x = np.ones((n, n), np.float32), np.ones(long, np.float32)
    y, on_device = np.empty_like(x), jnp.asarray(a)
    product, scaled, vector = jax.jit(jnp.matmul), jax.jit(lambda x: 2 * x), jnp.asarray(x)
    return {
        "numpy_GFLOP_per_s": 2e-9 * n**3 / best(lambda: a @ a),
        "xla_GFLOP_per_s": 2e-9 * n**3 / best(lambda: product(on_device, on_device)),
        "numpy_GB_per_s": 2e-9 * x.nbytes / best(lambda: np.multiply(x, 2, out=y)),
        "xla_GB_per_s": 2e-9 * x.nbytes / best(lambda: scaled(vector)),
    }


def roofline(work: str, seconds: float) -> dict[str, Any]:
    """Energy and forces of a work item: counts, peaks of these cores, and the time over the least that they allow."""
    structures = [Structure.from_ase(atoms) for atoms in make(ITEMS[work].system)]
    potential, graph = untrained(network_of(work), structures)
    size = Size(int(graph.node_mask.sum()), int(graph.slot_mask.sum()), len(potential.elements))
    models = {"equipot": potential, "equipot compressed": compress(potential).potential}
    before, programs = peaks(), {}
    for name, model in models.items():
        call, facts = compiled(energy_forces, model, graph)
        programs[name] = facts | timing(call, seconds)
    # Others may have used these cores in between: what the cores can do is the better of two measurements.
    measured = {name: max(value, again) for (name, value), again in zip(before.items(), peaks().values(), strict=True)}
    rate = max(measured["numpy_GFLOP_per_s"], measured["xla_GFLOP_per_s"])
    bandwidth = max(measured["numpy_GB_per_s"], measured["xla_GB_per_s"])
    for name, found in programs.items():
        counted = flop(models[name].term, size)
        moved = traffic(models[name].term, size, sum(x.size for x in jax.tree.leaves(models[name].variables)))
        limits = {"arithmetic_ms": 1e-6 * sum(counted.values()) / rate, "memory_ms": 1e-6 * moved / bandwidth}
        bound = max(limits.values())
        found |= {"flop": counted, "bytes": moved, **limits, "bound_ms": bound, "over_bound": fastest(found) / bound}
    about = {"device": device(), "model": config.dump(potential.term), "work": work, **size._asdict()}
    return about | measured | {"programs": programs} | memory()
