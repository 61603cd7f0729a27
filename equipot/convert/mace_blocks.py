"""Conversion of interaction blocks of mace-torch to the blocks of ``models.mace.MACE``, with all factors in the weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot.convert.torch_file import Record
from equipot.convert.torch_module import LinearMaps, Module, e3nn_activation, e3nn_linear, e3nn_mlp, e3nn_species_linear
from equipot.nn.gate import SIGMOID_SCALE
from equipot.nn.interaction import Attention, InteractionKind, NonLinear, Plain, Residual
from equipot.nn.normalize import Density, MeanNeighbors, PairDensity
from equipot.nn.radial import SILU_SCALE
from equipot.nn.radial_network import LAYER_NORM_FLOOR
from equipot.nn.tensor_product import Path, find_paths

FLIPPED = {(1, 2, 2), (1, 3, 3), (1, 4, 4), (1, 5, 5), (4, 4, 5), (5, 5, 5)}
"""Ascending degrees, of all up to ``HIGHEST_L``, whose 3j symbols in e3nn 0.4 (torch) and e3nn-jax have opposite signs."""
HIGHEST_L = 5
SILU, SIGMOID = "torch.nn.functional.silu", "torch.nn.functional.sigmoid"
DESCRIPTIONS = (
    "radial_MLP", "irreps_out", "irreps_nonlin", "edge_irreps", "node_attrs_irreps", "node_feats_irreps", "edge_attrs_irreps",
    "edge_feats_irreps", "target_irreps", "hidden_irreps", "node_feats_down_irreps",
)  # fmt: skip
"""Attributes that follow from the weights and irreps of the submodules."""

SCALAR = e3nn.Irrep("0e")
Params = dict[str, Any]


class Block(NamedTuple):
    """A converted interaction block."""

    kind: InteractionKind
    params: Params
    """Parameters of ``nn.interaction.Interaction``."""
    channels: int
    """Number of channels of the atomic basis."""
    message_channels: int
    """Number of channels of the features that neighbours send."""
    l_max: int
    """Highest degree of the spherical harmonics."""
    mlp: tuple[int, ...]
    """Hidden widths of the radial network."""
    avg_num_neighbors: float


class Basis(NamedTuple):
    """The radial basis in the file."""

    n: int
    """Number of basis functions."""
    factor: float
    """Ratio of the basis functions in the file to equipot's."""


def refuse_kernels(module: Module) -> None:
    """Refuse a module of accelerated kernels (cuEquivariance, OpenEquivariance), whose weights are in another layout.

    Raises:
        ValueError: the module uses such kernels.
    """
    for name in ("cueq_config", "oeq_config"):
        config = module.attribute(name, None)
        state = config.state if isinstance(config, Record) else {}
        if config is not None and (not isinstance(state, dict) or state.get("enabled", True)):
            raise module.fail(f"{name} is enabled; save the model without it (mace_cueq_to_torch does) and convert that")


def hidden_widths(params: Params) -> tuple[int, ...]:
    """Return the hidden widths of a network with matrices w0, w1, ..., the last of which gives the output."""
    depth = sum(name[0] == "w" for name in params)
    return tuple(params[f"w{k}"].shape[1] for k in range(depth - 1))


def one_width(module: Module, maps: Params) -> int:
    """Return the number of output channels of linear maps by irrep.

    Raises:
        ValueError: the number differs between irreps.
    """
    widths = {w.shape[1] for w in maps.values()}
    if len(widths) != 1:
        raise module.fail(f"different widths for different irreps ({sorted(widths)}) cannot be converted")
    return widths.pop()


def linear(maps: LinearMaps, wanted: list[e3nn.Irrep] | None = None) -> Params:
    """Make the parameters of ``nn.features.Linear``, for all irreps or for the irreps ``wanted``.

    Raises:
        ValueError: the map adds constants.
    """
    if maps.bias is not None:
        raise ValueError("a linear map with a constant cannot be converted here")
    kept = [ir for ir in maps.weights if wanted is None or ir in wanted]
    return {f"w{ir}": maps.joined(ir) * np.sqrt(maps.joined(ir).shape[0]) for ir in kept}


def network(matrices: list[np.ndarray], basis: Basis) -> Params:
    """Make the parameters of an ``nn.radial.MLP`` of the radial basis from its matrices."""
    matrices = [matrices[0] * basis.factor, *matrices[1:]]
    return {f"w{k}": w * np.sqrt(w.shape[0]) for k, w in enumerate(matrices)}


class Stored(NamedTuple):
    """Place of a path in the file."""

    output: int
    """Index among the outputs of the product."""
    columns: slice
    """Columns of the last layer of the radial network."""
    factor: float
    """Factor that turns radial weights of the file into equipot's."""


class Paths(NamedTuple):
    """The paths of a convolution in the file."""

    stored: dict[Path, Stored]
    """Place of each path, in equipot's order."""
    size: int
    """Number of radial weights in the file, including weights of input features that are always zero."""
    l_max: int
    """Highest degree of the spherical harmonics."""

    def columns(self, last: np.ndarray) -> np.ndarray:
        """Convert the last layer of a radial network, [..., paths and channels], to equipot's order and factors.

        Raises:
            ValueError: the number of columns is not ``size``.
        """
        if last.shape[-1] != self.size:
            raise ValueError(f"a radial network with {last.shape[-1]} outputs for {self.size} weights")
        return np.concatenate([last[..., path.columns] * path.factor for path in self.stored.values()], axis=-1)

    def reorder(self, maps: LinearMaps) -> Params:
        """Make the parameters of the linear map after the convolution, with inputs in equipot's order."""
        out = {}
        for ir, blocks in maps.weights.items():
            matrix = np.concatenate([blocks[stored.output] for path, stored in self.stored.items() if path.ir_out == ir])
            out[f"w{ir}"] = matrix * np.sqrt(matrix.shape[0])
        return out


def convolution_paths(module: Module, inputs: list[e3nn.Irrep]) -> Paths:
    """Read the paths of a tensor product.

    Args:
        module: Tensor product of features and spherical harmonics.
        inputs: Irreps of the neighbours' features that are not always zero.

    Raises:
        ValueError: the tensor product has other paths, weights or harmonics than equipot's convolution.
    """
    irreps_in, harmonics, irreps_out = (module.irreps(name) for name in ("irreps_in1", "irreps_in2", "irreps_out"))
    l_max = max(ir.l for _, ir in harmonics)
    natural = [ir for _, ir in e3nn.Irreps.spherical_harmonics(l_max)]
    if harmonics != [(1, ir) for ir in natural] or l_max > HIGHEST_L:
        raise module.fail(f"spherical harmonics other than of all l up to at most {HIGHEST_L}, with their parity")
    stored: dict[Path, Stored] = {}
    size = 0
    for i_in, i_edge, i_out, mode, has_weight, factor, shape in (x.args for x in module.attribute("instructions")):
        path = Path(irreps_in[i_in][1], harmonics[i_edge][1].l, irreps_out[i_out][1])
        if mode != "uvu" or not has_weight or path in stored or tuple(shape) != (irreps_in[i_in][0], 1):
            raise module.fail("an instruction that is not one weight for each channel and path")
        degrees = tuple(sorted((path.ir_in.l, path.l_edge, path.ir_out.l)))
        # Vectors have the opposite direction in MACE: Y_l(-v) = (-1)^l Y_l(v).
        sign = (-1) ** path.l_edge * (-1 if degrees in FLIPPED else 1)
        stored[path] = Stored(i_out, slice(size, size + shape[0]), sign * factor / np.sqrt(path.ir_out.dim))
        size += shape[0]
    module.of("e3nn.o3._tensor_product._tensor_product.TensorProduct").drop()
    ours = find_paths(sorted(inputs), l_max, natural)
    if set(ours) != {path for path in stored if path.ir_in in inputs}:
        raise module.fail(f"its paths are not all those of natural parity up to l = {l_max}")
    return Paths({path: stored[path] for path in ours}, size, l_max)


def pair_networks(module: Module, basis: Basis, paths: Paths) -> Params:
    """Read a radial network, and a density if there is one, that depend on the distance alone."""
    *hidden, last = e3nn_mlp(module.child("conv_tp_weights"), SILU_SCALE)
    params: Params = {"convolution": {"radial": network([*hidden, paths.columns(last)], basis)}}
    if "density_fn" in module:
        density = e3nn_mlp(module.child("density_fn"), SILU_SCALE)
        if len(density) != 1:
            raise module.fail(f"a density network of {len(density)} layers cannot be converted; one of one layer can")
        params["normalize"] = {"density": network(density, basis)}
    return params


def ends_networks(module: Module, basis: Basis, paths: Paths) -> Params:
    """Read a radial network whose first layer also depends on the invariants of both atoms."""
    first, *hidden, last = e3nn_mlp(module.child("conv_tp_weights"), SILU_SCALE)
    down = e3nn_linear(module.child("linear_down")).joined(SCALAR)
    radial, sender, receiver = np.split(first, [basis.n, basis.n + down.shape[1]])
    ends = {"sender": down @ sender, "receiver": down @ receiver}
    return {
        "convolution": {"radial": network([radial, *hidden, paths.columns(last)], basis)},
        **{name: {f"w{SCALAR}": w * np.sqrt(w.shape[0])} for name, w in ends.items()},
    }


def species_networks(module: Module, basis: Basis, paths: Paths) -> Params:
    """Read a radial network and a density that depend on the species of both atoms."""
    tables = [e3nn_linear(module.child(f"{end}_embedding")).joined(SCALAR) for end in ("source", "target")]
    radial = species_mlp(module.child("conv_tp_weights"), basis, tables)
    final = max(k for k in range(len(radial)) if f"w{k}" in radial)
    radial |= {name: paths.columns(radial[name]) for name in (f"w{final}", f"b{final}")}
    density = species_mlp(module.child("density_fn"), basis, tables)
    return {
        "convolution": {"radial": radial},
        "normalize": {"density": density, "alpha": module.array("alpha").reshape(()), "beta": module.array("beta").reshape(())},
    }


def species_mlp(module: Module, basis: Basis, tables: list[np.ndarray]) -> Params:
    """Make the parameters of ``nn.radial_network.SpeciesMLP``.

    Args:
        module: Network in the file.
        basis: Radial basis in the file.
        tables: Embeddings of the species of the sender and of the receiver, [species, width] each.
    """
    module.of("mace.modules.radial.RadialMLP").ignore("hs")
    layers = list(module.child("net").of("torch.nn.modules.container.Sequential"))
    if len(layers) < 4 or len(layers) % 3 != 1:
        raise module.fail(f"a network of {len(layers)} modules is not dense, normalised and activated layer by layer")
    params: Params = {}
    for k, layer in enumerate(layers[::3]):
        layer.of("torch.nn.modules.linear.Linear").ignore("in_features", "out_features")
        w, params[f"b{k}"] = layer.array("weight").T, layer.array("bias")
        if k == 0:
            w, sender, receiver = np.split(w, [basis.n, basis.n + tables[0].shape[1]])
            w = w * basis.factor
            params |= {"sender": tables[0] @ sender, "receiver": tables[1] @ receiver + params.pop("b0")}
        params[f"w{k}"] = w * np.sqrt(w.shape[0])
    for k, (norm, activation) in enumerate(zip(layers[1::3], layers[2::3], strict=True)):
        norm.of("torch.nn.modules.normalization.LayerNorm").ignore("normalized_shape", "elementwise_affine")
        norm.expect("eps", LAYER_NORM_FLOOR)
        activation.of("torch.nn.modules.activation.SiLU").ignore("inplace")
        params |= {f"scale{k}": norm.array("weight"), f"shift{k}": norm.array("bias")}
    return params


def mix(module: Module) -> Params:
    """Read the linear map after the gate of a block, with the factors of the activations of the gate."""
    gate = module.child("equivariant_nonlin").of("mace.modules.gate.GatedEquivariantBlock", "e3nn.nn._gate.Gate")
    if gate.kind == "Gate":
        scales = []
        for name in ("act_scalars", "act_gates"):
            (activation,) = {e3nn_activation(x) for x in gate.child(name).child("acts")}
            scales.append(activation)
        (silu, of_scalars), (sigmoid, of_gates) = scales
    else:
        gate.expect("_layout_is_ir_mul", False)
        silu, sigmoid = (getattr(gate.attribute(f"_act_{name}"), "source", "") for name in ("scalar", "gate"))
        of_scalars, of_gates = gate.number("_scalar_cst"), gate.number("_gate_cst")
    gate.drop()
    if (silu, sigmoid) != (SILU, SIGMOID):
        raise gate.fail(f"activations {silu} and {sigmoid} cannot be converted; silu for scalars and sigmoid for gates can")
    params = linear(e3nn_linear(module.child("linear_2")))
    return {n: w * (of_scalars / SILU_SCALE if n == f"w{SCALAR}" else of_gates / SIGMOID_SCALE) for n, w in params.items()}


def linear_basis(module: Module, paths: Paths) -> Params:
    """Read the linear map from messages to the atomic basis."""
    return {"down": paths.reorder(e3nn_linear(module.child("linear")))}


def gated_basis(module: Module, paths: Paths) -> Params:
    """Read the maps from messages to the atomic basis through a gate, and the bypass of the messages."""
    return {
        "down": paths.reorder(e3nn_linear(module.child("linear_1"))),
        "bypass": linear(e3nn_linear(module.child("linear_res"))),
        "mix": mix(module),
    }


def species_skip(module: Module, wanted: list[e3nn.Irrep] | None = None) -> Params:
    """Read the species-dependent linear map of a block, for all irreps or for the irreps ``wanted``."""
    maps = e3nn_species_linear(module.child("skip_tp"))
    return {f"w{ir}": w * np.sqrt(w.shape[1]) for ir, w in maps.items() if wanted is None or ir in wanted}


def shared_skip(module: Module, wanted: list[e3nn.Irrep], name: str) -> Params:
    """Read the linear map of a bypass that is one for all species, the submodule ``name``, for the irreps ``wanted``."""
    return linear(e3nn_linear(module.child(name)), wanted)


class Reader(NamedTuple):
    """Reader of the interaction blocks of one class of mace-torch."""

    kind: InteractionKind
    networks: Callable[[Module, Basis, Paths], Params] = pair_networks
    """Function that reads the radial network and the density."""
    basis: Callable[[Module, Paths], Params] = linear_basis
    """Function that reads the maps from messages to the atomic basis."""
    skip: Callable[[Module, list[e3nn.Irrep]], Params] = species_skip
    """Function that reads the linear map ``skip``, for given irreps of the bypass."""


READERS = {
    # Without a bypass, the map acts on the message and all of its irreps are needed.
    "RealAgnosticInteractionBlock": Reader(Plain(MeanNeighbors()), skip=lambda module, _: species_skip(module)),
    "RealAgnosticResidualInteractionBlock": Reader(Residual(MeanNeighbors())),
    "RealAgnosticDensityInteractionBlock": Reader(Plain(Density()), skip=lambda module, _: species_skip(module)),
    "RealAgnosticDensityResidualInteractionBlock": Reader(Residual(Density())),
    "RealAgnosticAttResidualInteractionBlock": Reader(
        Attention(MeanNeighbors()), ends_networks, skip=partial(shared_skip, name="skip_linear")
    ),
    "RealAgnosticResidualNonLinearInteractionBlock": Reader(
        NonLinear(PairDensity()), species_networks, gated_basis, partial(shared_skip, name="skip_tp")
    ),
}
"""Readers by the class of the interaction block in ``mace.modules.blocks``."""


def interaction(module: Module, basis: Basis, skipped: list[e3nn.Irrep]) -> Block:
    """Convert an interaction block.

    Args:
        module: Interaction block in the file.
        basis: Radial basis in the file.
        skipped: Irreps of the bypass that the next layer uses.

    Raises:
        ValueError: the block cannot be converted.
    """
    reader = READERS[module.of(*(f"mace.modules.blocks.{name}" for name in READERS)).kind]
    module.ignore(*DESCRIPTIONS)
    module.child("reshape").drop()
    refuse_kernels(module)
    up = e3nn_linear(module.child("linear_up"))
    if set(up.weights) != {ir for _, ir in module.child("linear_up").irreps("irreps_in")}:
        raise module.fail("edge_irreps without some of the hidden irreps cannot be converted")
    paths = convolution_paths(module.child("conv_tp"), list(up.weights))
    to_basis = reader.basis(module, paths)
    networks = reader.networks(module, basis, paths)
    params: Params = {"up": linear(up), **to_basis, "skip": reader.skip(module, skipped), **networks}
    hidden = hidden_widths(params["convolution"]["radial"])
    # The last of the maps gives the atomic basis.
    channels, width = one_width(module, list(to_basis.values())[-1]), one_width(module, params["up"])
    return Block(reader.kind, params, channels, width, paths.l_max, hidden, module.number("avg_num_neighbors"))
