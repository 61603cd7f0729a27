"""Conversion of models of NequIP (torch, 0.7 and newer) to equipot's NequIP, from the tensors of any kind of file.

Weights are copied up to constant factors, which are folded into the next linear map in double precision: e3nn's normalisation
of activations in gates, the SiLU without normalisation of the radial network, the prefactor of the radial basis, and signs of
coupling coefficients. NequIP's self-connections, products with an embedding of the species, become matrices for each species.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot import units
from equipot.convert.e3nn_torch import SILU, Weights, linear, parameters
from equipot.convert.gated_layers import EVEN, entering, gains, our_columns, our_paths, our_rows, signs, stored_paths
from equipot.metadata import Metadata
from equipot.models.nequip import BothParities, NaturalParity, NequIP, PerSpecies, RotationsOnly
from equipot.nn.features import regroup
from equipot.nn.normalize import MeanNeighbors, SenderNeighbors
from equipot.nn.radial import SILU_SCALE, Bessel, PolynomialEnvelope, Radial
from equipot.physics.zbl import ZBL
from equipot.potential import Potential
from equipot.term import cutoff_of

FOLLOWS = re.compile(r"output_mask$|\._w3j_\d_\d_\d$|\._tensor_constant\d+$")
"""Names of buffers of e3nn that follow from the irreps."""
COULOMB = 14.399645
"""e^2 / (4 pi epsilon_0) in NequIP's ZBL (eV Å)."""
LAMMPS = ((0.02817, 0.28022, 0.50986, 0.18175), (0.20162, 0.40290, 0.94229, 3.19980), 0.46850)
"""Coefficients, decays and length (Å) of ZBL in LAMMPS, which NequIP follows."""


class Model(NamedTuple):
    """Properties of a model that do not follow from its tensors."""

    elements: tuple[int, ...]
    """Atomic number of each type."""
    cutoff: float
    """Cutoff radius (Å)."""
    harmonics: e3nn.Irreps
    """Irreps of the spherical harmonics."""
    features: tuple[e3nn.Irreps, ...]
    """Requested irreps after each layer, some of which the layer may be unable to produce."""
    envelope: float
    """Exponent p of the polynomial envelope."""
    neighbors: tuple[float, ...]
    """Mean number of neighbours of each element; features that its atoms send are divided by the square root."""
    repulsion: float
    """Exponent p of the envelope of a pair potential, if there is one."""


def build(model: Model, tensors: Mapping[str, Any]) -> Potential:
    """Convert a model to a potential in double precision.

    Args:
        model: Properties of the model.
        tensors: Tensors by their names in NequIP's modules, from ``type_embed`` on.

    Raises:
        ValueError: equipot's NequIP cannot represent the model, or a tensor is missing or unknown.
    """
    weights = Weights(tensors)
    check_cutoff(model, weights)
    term, hidden = read_term(model, weights)
    embedding = weights.take("type_embed.embed_module.weight")
    if embedding.shape != (len(term.elements), hidden[0].dim):
        raise ValueError(f"the embedding of types has the shape {embedding.shape}, but there are {len(term.elements)} types")
    frequencies = weights.take("bessel_encode.bessel_weights")[0] * np.pi
    params: dict[str, Any] = {"embedding": {"w": embedding}}
    if isinstance(term.radial.basis, Bessel) and term.radial.basis.trainable:
        params["frequencies"] = frequencies
    for t in range(term.layers):
        params[f"layer{t}"] = convert_layer(weights, term, t, hidden[t], hidden[t + 1], embedding)
    params["readout"] = {"out": {"w0": SILU / SILU_SCALE * readout(weights)}}
    scale, shift = (per_type(weights, name, len(term.elements)) for name in ("scales", "shifts"))
    neighbors = np.array(model.neighbors)
    constants: dict[str, Any] = {
        "avg_num_neighbors": neighbors if term.normalization.counts_by_species else neighbors[0],
        "scale": np.ones(len(term.elements)) if scale is None else scale,
        "shift": np.zeros(len(term.elements)),
    }
    if term.repulsion is not None:
        check_repulsion(term, weights)
        # NequIP's repulsion ends at the cutoff, equipot's at the sum of these radii.
        constants["radii"] = np.full(len(term.elements), cutoff_of(term) / 2)
    if left := [name for name in weights if not FOLLOWS.search(name) and weights.left[name].size]:
        raise ValueError(f"the file has weights that the models of NequIP known here do not have: {', '.join(left)}")
    energies = np.zeros(len(term.elements)) if shift is None else shift
    free = tuple(sorted(zip(term.elements, energies.tolist(), strict=True)))
    return Potential(term, {"params": params, "constants": constants}, Metadata(atomic_energies=free))


def check_cutoff(model: Model, weights: Weights) -> None:
    """Check that the tensors have a single cutoff, the cutoff of the model.

    Raises:
        ValueError: the tensors have several cutoffs or another cutoff.
    """
    inverse = weights.take("edge_norm._rmax_recip")
    if inverse.size != 1:
        raise ValueError("cutoffs for each pair of types (per_edge_type_cutoff) cannot be converted; one for all can")
    if not np.isclose(inverse.item() * model.cutoff, 1, rtol=1e-6):
        raise ValueError(f"the weights were made for a cutoff of {1 / inverse.item():g} Å, the settings say {model.cutoff:g} Å")


def read_term(model: Model, weights: Weights) -> tuple[NequIP, list[e3nn.Irreps]]:
    """Find the term that represents a model.

    Returns:
        The term; and the irreps before the first layer and after each layer, in the file's order.

    Raises:
        ValueError: equipot's NequIP cannot represent the model.
    """
    degrees = [ir.l for _, ir in model.harmonics]
    if degrees != list(range(len(degrees))) or model.harmonics.dim != len(degrees) ** 2:
        raise ValueError(f"spherical harmonics {model.harmonics} are not one each of l = 0, 1, ...")
    odd = -1 if any(ir.p == -1 for _, ir in model.harmonics) else 1
    bessel = weights.left["bessel_encode.bessel_weights"] if "bessel_encode.bessel_weights" in weights else np.ones((1, 1))
    width = embedding_width(weights)
    bare = NequIP(
        elements=model.elements,
        cutoff=model.cutoff,
        l_max=degrees[-1],
        channels=widths(model.features, degrees[-1]),
        layers=len(model.features),
        embedding=width,
        radial=Radial(
            Bessel(bessel.shape[1], trainable=not np.array_equal(bessel[0], np.arange(1, bessel.shape[1] + 1))),
            envelope(model.envelope),
            mlp=hidden_widths(weights, len(model.features)),
        ),
        self_connection=PerSpecies() if any(name.endswith(".sc.weight") for name in weights) else None,
        normalization=MeanNeighbors(0.5) if len(set(model.neighbors)) == 1 else SenderNeighbors(0.5),
        readout=None,
        repulsion=repulsion(model.repulsion) if "pair_potential._qqr2exesquare" in weights else None,
    )
    hidden = hidden_irreps(model, width)
    for parity in (RotationsOnly(),) if odd == 1 and degrees[-1] else (NaturalParity(), BothParities()):
        term = bare.clone(parity=parity)
        after = [term.features([ir for _, ir in x], last=t == term.layers - 1) for t, x in enumerate(hidden[:-1])]
        if [regroup(irreps) for irreps in after] == [regroup(irreps) for irreps in hidden[1:]]:
            return term, hidden
    raise ValueError(f"features {', '.join(map(str, hidden[1:]))} cannot be converted: not those of one parity in all layers")


def widths(features: tuple[e3nn.Irreps, ...], l_max: int) -> tuple[int, ...]:
    """Return the number of channels for each l up to ``l_max``.

    Raises:
        ValueError: irreps of one l differ in their number of channels, or an irrep is repeated.
    """
    found: dict[int, int] = {}
    for irreps in features:
        if any(found.setdefault(ir.l, mul) != mul for mul, ir in irreps) or len({ir for _, ir in irreps}) < len(list(irreps)):
            raise ValueError(f"features {irreps} cannot be converted: one l has several widths")
    # After a single layer there are only scalars, and the widths of other l are not used.
    return tuple(found.get(l, found.get(0, 1)) for l in range(l_max + 1))


def embedding_width(weights: Weights) -> int:
    """Return the width of the embedding of species; 1 without an embedding."""
    name = "type_embed.embed_module.weight"
    return weights.left[name].shape[-1] if name in weights else 1


def hidden_widths(weights: Weights, layers: int) -> tuple[int, ...]:
    """Return the hidden widths of the radial networks.

    Raises:
        ValueError: the widths differ between layers.
    """
    found = []
    for t in range(layers):
        names = [name for name in weights if name.startswith(f"layer{t}_convnet.conv.edge_mlp.mlp.")]
        found.append(tuple(weights.left[name].shape[-1] for name in names[:-1]))
    if len(set(found)) > 1:
        raise ValueError(f"radial networks with hidden widths {found} cannot be converted; the same in all layers can")
    return found[0]


def envelope(p: float) -> PolynomialEnvelope:
    """Make the envelope with an exponent p.

    Raises:
        ValueError: p is not a whole number.
    """
    if p != int(p):
        raise ValueError(f"polynomial_cutoff_p {p:g} cannot be converted; a whole number can")
    return PolynomialEnvelope(int(p))


def repulsion(p: float) -> ZBL:
    """Make NequIP's ZBL, which has the constants of LAMMPS, with an envelope of exponent p."""
    coefficients, decays, length = LAMMPS
    ours = units.hartree * units.bohr
    scaled = tuple(c * COULOMB / ours for c in coefficients)
    return ZBL(envelope=envelope(p), length=length, exponent=0.23, coefficients=scaled, decays=decays)


def check_repulsion(term: NequIP, weights: Weights) -> None:
    """Check the unit (eV) and the atomic numbers of a ZBL repulsion.

    Raises:
        ValueError: the energy is not in eV, or atomic numbers differ from those of the types.
    """
    half = weights.take("pair_potential._qqr2exesquare").item()
    if not np.isclose(half, COULOMB / 2, rtol=1e-6):
        raise ValueError(f"ZBL with {2 * half:g} in front is not in eV and Å (units: metal); only that can be converted")
    numbers = weights.take("pair_potential.atomic_numbers").astype(int).tolist()
    if tuple(numbers) != term.elements:
        raise ValueError(f"ZBL's chemical_species have the atomic numbers {numbers}, but type_names {list(term.elements)}")


def hidden_irreps(model: Model, width: int) -> list[e3nn.Irreps]:
    """List the irreps before the first layer and after each layer, scalars first.

    After a layer, these are the requested irreps that a product of features and harmonics can produce.
    """
    hidden = [e3nn.Irreps(f"{width}x0e")]
    for wanted in model.features:
        made = {out for _, ir in hidden[-1] for _, edge in model.harmonics for out in ir * edge}
        there = [(mul, ir) for mul, ir in wanted if ir in made]
        hidden.append(e3nn.Irreps([*((m, ir) for m, ir in there if ir.l == 0), *((m, ir) for m, ir in there if ir.l > 0)]))
    return hidden


def convert_layer(
    weights: Weights, term: NequIP, t: int, x: e3nn.Irreps, after: e3nn.Irreps, embedding: np.ndarray
) -> dict[str, Any]:
    """Make the parameters of layer ``t``, with input irreps ``x`` and output irreps ``after``."""
    gain = gains(x) if t else {ir: 1.0 for _, ir in x}
    into, arrange = entering(after)
    wanted = {ir for _, ir in into}
    stored, ours, name = stored_paths(term, x, wanted.__contains__, False), our_paths(term, x, after), f"layer{t}_convnet.conv"
    # Before 0.8 the product was not a module of its own.
    product = next((p for p in ("tp_scatter.tp", "tp") if any(key.startswith(f"{name}.{p}.") for key in weights)), "tp")
    flips = signs(weights, f"{name}.{product}._compiled_main_left_right._w3j_", ours)
    down = linear(weights.take(f"{name}.linear_2.weight"), stored.irreps, into)
    down = {ir: down[ir][rows] for ir, rows in our_rows(ours, stored).items()}
    down[EVEN] = down[EVEN][:, arrange]
    params = {
        "up": parameters({ir: gain[ir] * w for ir, w in linear(weights.take(f"{name}.linear_1.weight"), x, x).items()}),
        "convolution": {"radial": radial_network(weights, term, name, flips, [stored.columns[path] for path in ours])},
        "down": parameters(down),
    }
    if term.self_connection is not None:
        own = self_connection(weights, name, x, into, embedding)
        own[EVEN] = own[EVEN][..., arrange]
        params["self"] = parameters({ir: gain[ir] * w for ir, w in own.items()})
    return params


def radial_network(
    weights: Weights, term: NequIP, name: str, signs: list[float], columns: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Make the parameters of a radial network; ``signs`` and ``columns`` as in ``our_columns``."""
    depth = len(term.radial.mlp)
    out = {f"w{k}": weights.take(f"{name}.edge_mlp.mlp.{2 * k}.weight") for k in range(depth + 1)}
    for k in range(1, depth + 1):
        # NequIP scales the layers after a SiLU by sqrt(2), and does not normalise the SiLU.
        out[f"w{k}"] *= np.sqrt(2) / SILU_SCALE
    # The prefactor of the basis is 2/c in NequIP, sqrt(2/c) in equipot.
    out["w0"] *= np.sqrt(2 / cutoff_of(term))
    out[f"w{depth}"] = our_columns(out[f"w{depth}"], signs, columns, f"{name}.edge_mlp")
    return out


def self_connection(
    weights: Weights, name: str, x: e3nn.Irreps, into: e3nn.Irreps, embedding: np.ndarray
) -> dict[e3nn.Irrep, np.ndarray]:
    """Compute the matrices of a self-connection by irrep, [species, inputs, outputs]; zeros for a layer without one."""
    count, width = embedding.shape
    product = e3nn.Irreps([(mul * width, ir) for mul, ir in x])
    needed = sum(mul * mul_out for mul, ir in product for mul_out, ir_out in into if ir == ir_out)
    flat = weights.take(f"{name}.sc.weight") if f"{name}.sc.weight" in weights else np.zeros(needed)
    mixed = linear(flat, product, into)
    return {ir: np.einsum("uvw,sv->suw", w.reshape(-1, width, w.shape[-1]), embedding) for ir, w in mixed.items()}


def readout(weights: Weights) -> np.ndarray:
    """Read the linear map from the last features to the energy, [channels, 1], without the factor 1 / sqrt(fan_in).

    Raises:
        ValueError: the readout has hidden layers.
    """
    stem = "per_atom_energy_readout.mlp_module.mlp."
    if any(name.startswith(stem) and name != f"{stem}0.weight" for name in weights):
        raise ValueError("a readout with hidden layers (readout_mlp_hidden_layers_depth) cannot be converted; a linear one can")
    return weights.take(f"{stem}0.weight")


def per_type(weights: Weights, name: str, count: int) -> np.ndarray | None:
    """Read the scales or the shifts (eV) of all types; None for a model without any."""
    found = weights.take(f"per_type_energy_scale_shift.{name}").reshape(-1)
    return np.broadcast_to(found, count).copy() if found.size else None
