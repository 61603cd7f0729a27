"""MACE and NequIP written plainly on e3nn-jax: an edge list, IrrepsArrays, full tensor products, segment sums.

Slow and easy to check against the papers. Parameters are those of the fast models, by name. Features are IrrepsArrays in e3nn's
layout (multiplicity before component), so nothing here shares the layout or the algorithm of ``equipot.nn``.
"""

from __future__ import annotations

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad


def second_moment(f):
    """E[f(x)^2] for x ~ N(0, 1), by quadrature."""
    return quad(lambda x: float(f(x)) ** 2 * np.exp(-x * x / 2) / np.sqrt(2 * np.pi), -12, 12, epsabs=1e-12)[0]


SILU = 1 / np.sqrt(second_moment(lambda x: x / (1 + np.exp(-x))))
TANH = 1 / np.sqrt(second_moment(np.tanh))


def silu(x):
    return SILU * x / (1 + jnp.exp(-x))


def mlp(params, x):
    weights = [params[f"w{k}"] for k in range(len(params))]
    for k, w in enumerate(weights):
        x = x @ w / np.sqrt(len(w))
        if k < len(weights) - 1:
            x = silu(x)
    return x


def linear(params, x, irreps):
    """One matrix for each irrep of ``irreps`` that ``x`` has."""
    x = x.regroup()
    chunks = dict(zip([ir for _, ir in x.irreps], x.chunks, strict=True))
    out = []
    for mul, ir in e3nn.Irreps(irreps).sort().irreps.simplify():
        if ir in chunks:
            w = params[f"w{ir}"]
            out.append((e3nn.Irreps([(mul, ir)]), jnp.einsum("num,uv->nvm", chunks[ir], w) / np.sqrt(w.shape[0])))
    return concatenate(out)


def species_linear(params, x, irreps, species):
    rows = [linear(jax.tree.map(lambda w, s=s: w[s], params), x[n : n + 1], irreps) for n, s in enumerate(np.asarray(species))]
    return e3nn.concatenate(rows, axis=0)


def concatenate(parts):
    irreps = sum((i for i, _ in parts), e3nn.Irreps(""))
    return e3nn.IrrepsArray(irreps, jnp.concatenate([p.reshape(len(p), -1) for _, p in parts], axis=1))


def bessel(r, n, cutoff):
    k = np.arange(1, n + 1) * np.pi / cutoff
    return np.sqrt(2 / cutoff) * jnp.sin(k[None] * r[:, None]) / r[:, None]


def envelope(r, p, cutoff):
    x = r / cutoff
    u = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    return jnp.where(x < 1, u, 0.0)


def convolution(params, x, term, irreps, edges, num_atoms):
    """sum_j R(r_ij) (x_j (x) Y(v_ij)): a full tensor product for every pair, weighted path by path."""
    centers, neighbors, vectors, radial = edges
    harmonics = e3nn.spherical_harmonics(e3nn.Irreps.spherical_harmonics(term.l_max), vectors, True, "component")
    kept = [ir for _, ir in e3nn.Irreps(irreps)]
    x = x.regroup()
    # Paths ordered by output, then input, then l.
    paths = sorted(
        (ir_out, a, b)
        for a, (_, ir_in) in enumerate(x.irreps)
        for b, (_, ir_edge) in enumerate(harmonics.irreps)
        for ir_out in ir_in * ir_edge
        if ir_out in kept
    )
    weights = mlp(params["radial"], radial)
    out, start = [], 0
    for ir_out, a, b in paths:
        mul, ir_in = x.irreps[a]
        message = e3nn.tensor_product(
            e3nn.IrrepsArray(e3nn.Irreps([(mul, ir_in)]), x.chunks[a].reshape(len(x.array), -1))[neighbors],
            e3nn.IrrepsArray(e3nn.Irreps([harmonics.irreps[b]]), harmonics.chunks[b].reshape(len(vectors), -1)),
            filter_ir_out=[ir_out],
            irrep_normalization="component",
        )
        w = weights[:, start : start + mul]
        start += mul
        array = message.array.reshape(-1, mul, ir_out.dim) * w[:, :, None]
        out.append((e3nn.Irreps([(mul, ir_out)]), jax.ops.segment_sum(array, centers, num_atoms)))
    return concatenate(out)


def normalize(choice, message, params, constants, mean, pairs, n):
    if type(choice).__name__ == "Density":
        density = jnp.tanh(mlp(params["normalize"]["density"], pairs[3])[:, 0] ** 2)
        return message / (1 + jax.ops.segment_sum(density, pairs[0], n))[:, None]
    if type(choice).__name__ == "MeanNeighbors":
        return message / mean**choice.exponent
    rms = constants["normalize"]["rms"]
    parts = zip(message.irreps, message.chunks, strict=True)
    return concatenate([(e3nn.Irreps([(mul, ir)]), chunk / rms[str(ir)]) for (mul, ir), chunk in parts])


def contraction(params, a, irreps, correlation, species):
    """Every power of A contracted with e3nn's symmetric basis, one factor after the other."""
    a = a.regroup()
    x = jnp.concatenate(a.chunks, axis=-1)  # atoms, channels, components
    one = e3nn.Irreps([(1, ir) for _, ir in a.irreps])
    out = []
    for _, ir in e3nn.Irreps(irreps):
        total = 0.0
        for degree in range(1, correlation + 1):
            name = f"w{degree}_{ir}"
            if name not in params:
                continue
            u = e3nn.reduced_symmetric_tensor_product_basis(one, degree, keep_ir=[ir]).chunks[0]
            # One atomic basis after the other: contract the first axis of U with A.
            b = jnp.einsum("ncp,p...->nc...", x, u)
            for _ in range(degree - 1):
                b = jnp.einsum("ncp,ncp...->nc...", x, b)
            total += jnp.einsum("nckd,nkc->ncd", b, params[name][species] / u.shape[-2])
        out.append((e3nn.Irreps([(x.shape[1], ir)]), total))
    return concatenate(out)


def prepare(term, structure, edges):
    species = np.searchsorted(np.asarray(term.elements), structure.numbers)
    shift = edges.shifts @ structure.cell
    vectors = jnp.asarray(structure.positions[edges.neighbors] + shift - structure.positions[edges.centers])
    r = jnp.linalg.norm(vectors, axis=-1)
    radial = bessel(r, term.radial.basis.n, term.cutoff) * envelope(r, term.radial.envelope.p, term.cutoff)[:, None]
    return species, (edges.centers, edges.neighbors, vectors, radial)


def finish(variables, network, species):
    constants = variables["constants"]
    return constants["scale"][species] * network + constants["shift"][species]


def mace(term, variables, structure, edges):
    """Energy of each atom less the isolated atom's, eV."""
    params, n = variables["params"], len(structure)
    species, pairs = prepare(term, structure, edges)
    mean = variables["constants"]["avg_num_neighbors"]
    x = e3nn.IrrepsArray(f"{term.channels}x0e", params["embedding"]["w"][species])
    basis = e3nn.Irreps([(term.channels, ir) for _, ir in e3nn.Irreps.spherical_harmonics(term.l_max)])
    energy = 0.0
    for layer in range(term.layers):
        last = layer == term.layers - 1
        hidden = e3nn.Irreps.spherical_harmonics(0 if last else term.hidden_l)
        irreps = e3nn.Irreps([(term.channels, ir) for _, ir in hidden])
        block = params[f"interaction{layer}"]
        choice = term.first if layer == 0 else term.others
        residual = type(choice).__name__ == "Residual"
        skip = species_linear(block["skip"], x, irreps, species) if residual else None
        message = convolution(block["convolution"], linear(block["up"], x, x.irreps), term, basis, pairs, n)
        constants = variables["constants"].get(f"interaction{layer}", {})
        message = normalize(choice.normalization, message, block, constants, mean, pairs, n)
        a = linear(block["down"], message, basis)
        if not residual:
            a = species_linear(block["skip"], a, basis, species)
        x = linear(
            params[f"linear{layer}"], contraction(params[f"contraction{layer}"], a, irreps, term.correlation, species), irreps
        )
        if skip is not None:
            # The bypass lacks irreps that its input lacks.
            missing = [(mul, ir) for mul, ir in irreps if ir not in [i for _, i in skip.irreps]]
            padded = concatenate([
                (skip.irreps, skip.array),
                *((e3nn.Irreps([m]), jnp.zeros((n, m[0] * m[1].dim))) for m in missing),
            ])  # fmt: skip
            x = x + padded.regroup()
        energy += mlp(params[f"readout{layer}"], x.filter("0e").array)[:, 0]
    return finish(variables, energy, species)


def nequip(term, variables, structure, edges):
    """Energy of each atom less the isolated atom's, eV."""
    params, n = variables["params"], len(structure)
    species, pairs = prepare(term, structure, edges)
    mean = variables["constants"]["avg_num_neighbors"]
    x = e3nn.IrrepsArray(f"{term.channels}x0e", params["embedding"]["w"][species])
    for layer in range(term.layers):
        block = params[f"layer{layer}"]
        both = type(term.parity).__name__ == "BothParities"
        parities = [(l, p) for l in range(term.l_max + 1) for p in ((1, -1) if both else ((-1) ** l,))]
        wanted = [(0, 1)] if layer == term.layers - 1 else parities
        found = {
            ir
            for _, a in x.irreps
            for l in range(term.l_max + 1)
            for ir in a * e3nn.Irrep(l, (-1) ** l)
        }  # fmt: skip
        irreps = e3nn.Irreps([(term.channels, ir) for ir in wanted if e3nn.Irrep(ir) in found]).sort().irreps
        gates = sum(mul for mul, ir in irreps if ir.l > 0)
        entering = (irreps + e3nn.Irreps(f"{gates}x0e")).sort().irreps.simplify()
        message = convolution(block["convolution"], linear(block["up"], x, x.irreps), term, entering, pairs, n)
        constants = variables["constants"].get(f"layer{layer}", {})
        message = normalize(term.normalization, message, block, constants, mean, pairs, n)
        y = linear(block["down"], message, entering)
        if "self" in block:
            kind = type(term.self_connection).__name__
            own = (
                species_linear(block["self"], x, entering, species)
                if kind == "PerSpecies"
                else linear(block["self"], x, entering)
            )
            chunks = dict(zip([ir for _, ir in own.irreps], own.chunks, strict=True))
            parts = zip(y.irreps, y.chunks, strict=True)
            y = concatenate([(e3nn.Irreps([(mul, ir)]), chunk + chunks.get(ir, 0)) for (mul, ir), chunk in parts])
        x = gate(y, irreps)
    hidden = linear(params["readout"]["hidden"], x, f"{term.readout}x0e").array
    return finish(variables, mlp(params["readout"]["out"], hidden)[:, 0], species)


def gate(y, irreps):
    chunks = dict(zip([ir for _, ir in y.irreps], y.chunks, strict=True))
    even = chunks[e3nn.Irrep("0e")]
    kept = sum(mul for mul, ir in irreps if ir == "0e")
    gates, out = silu(even[:, kept:]), []
    for mul, ir in irreps:
        if ir == "0e":
            value = silu(even[:, :kept])
        elif ir == "0o":
            value = TANH * jnp.tanh(chunks[ir])
        else:
            value, gates = chunks[ir] * gates[:, :mul, :1], gates[:, mul:]
        out.append((e3nn.Irreps([(mul, ir)]), value))
    return concatenate(out)
