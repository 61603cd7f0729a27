"""Interaction blocks of mace-torch as those of ``models.mace.MACE``: the same functions, with all factors in the weights."""

from __future__ import annotations

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

BLOCKS = {
    "mace.modules.blocks.RealAgnosticInteractionBlock": Plain(MeanNeighbors()),
    "mace.modules.blocks.RealAgnosticResidualInteractionBlock": Residual(MeanNeighbors()),
    "mace.modules.blocks.RealAgnosticDensityInteractionBlock": Plain(Density()),
    "mace.modules.blocks.RealAgnosticDensityResidualInteractionBlock": Residual(Density()),
    "mace.modules.blocks.RealAgnosticAttResidualInteractionBlock": Attention(MeanNeighbors()),
    "mace.modules.blocks.RealAgnosticResidualNonLinearInteractionBlock": NonLinear(PairDensity()),
}
FLIPPED = {(1, 2, 2), (1, 3, 3), (1, 4, 4), (1, 5, 5), (4, 4, 5), (5, 5, 5)}
"""Degrees, ascending, for which the 3j symbols of e3nn 0.4 in torch and of e3nn-jax differ by their sign, of all up to 5."""
HIGHEST_L = 5
SILU, SIGMOID = "torch.nn.functional.silu", "torch.nn.functional.sigmoid"
DESCRIPTIONS = (
    "radial_MLP", "irreps_out", "irreps_nonlin", "edge_irreps", "node_attrs_irreps", "node_feats_irreps", "edge_attrs_irreps",
    "edge_feats_irreps", "target_irreps", "hidden_irreps", "node_feats_down_irreps",
)  # fmt: skip
"""Attributes that repeat what the weights and irreps of the submodules say."""

SCALAR = e3nn.Irrep("0e")
Params = dict[str, Any]


class Block(NamedTuple):
    """An interaction block: what it is, its parameters and its shape."""

    choice: InteractionKind
    params: Params
    channels: int
    message_channels: int
    l_max: int
    mlp: tuple[int, ...]
    avg_num_neighbors: float


class Basis(NamedTuple):
    """The stored radial basis."""

    n: int
    factor: float
    """Over ours."""


def interaction(module: Module, basis: Basis, skipped: list[e3nn.Irrep]) -> Block:
    """An interaction block; of what bypasses it, the irreps ``skipped`` are wanted."""
    choice = BLOCKS[module.of(*BLOCKS).source]
    module.ignore(*DESCRIPTIONS)
    module.child("reshape").drop()
    refuse_kernels(module)
    up = e3nn_linear(module.child("linear_up"))
    if set(up.weights) != {ir for _, ir in module.child("linear_up").irreps("irreps_in")}:
        raise module.fail("edge_irreps without some of the hidden irreps cannot be converted")
    paths = convolution_paths(module.child("conv_tp"), list(up.weights))
    gated = isinstance(choice, NonLinear)
    down = paths.reorder(e3nn_linear(module.child("linear_1" if gated else "linear")))
    params: Params = {"up": linear(up), "down": down}
    if isinstance(choice, Plain | Residual):
        skip = e3nn_species_linear(module.child("skip_tp"))
        kept = skip if isinstance(choice, Plain) else {ir: w for ir, w in skip.items() if ir in skipped}
        params["skip"] = {f"w{ir}": w * np.sqrt(w.shape[1]) for ir, w in kept.items()}
    else:
        name = "skip_linear" if isinstance(choice, Attention) else "skip_tp"
        params["skip"] = linear(e3nn_linear(module.child(name)), skipped)
    networks = species_networks if gated else ends_networks if isinstance(choice, Attention) else pair_networks
    params |= networks(module, basis, paths)
    if gated:
        params |= {"bypass": linear(e3nn_linear(module.child("linear_res"))), "mix": mix(module)}
    hidden = hidden_widths(params["convolution"]["radial"])
    channels, width = one_width(module, params["mix" if gated else "down"]), one_width(module, params["up"])
    return Block(choice, params, channels, width, paths.l_max, hidden, module.number("avg_num_neighbors"))


def refuse_kernels(module: Module) -> None:
    """A file of accelerated kernels has weights in another layout."""
    for name in ("cueq_config", "oeq_config"):
        config = module.attribute(name, None)
        state = config.state if isinstance(config, Record) else {}
        if config is not None and (not isinstance(state, dict) or state.get("enabled", True)):
            raise module.fail(f"{name} is enabled; save the model without it (mace_cueq_to_torch does) and convert that")


def hidden_widths(params: Params) -> tuple[int, ...]:
    """Widths of a network with parameters w0, w1, ... but for the last."""
    depth = sum(name[0] == "w" for name in params)
    return tuple(params[f"w{k}"].shape[1] for k in range(depth - 1))


def one_width(module: Module, maps: Params) -> int:
    """The number of channels that comes out for every irrep."""
    widths = {w.shape[1] for w in maps.values()}
    if len(widths) != 1:
        raise module.fail(f"different widths for different irreps ({sorted(widths)}) cannot be converted")
    return widths.pop()


def linear(maps: LinearMaps, wanted: list[e3nn.Irrep] | None = None) -> Params:
    """Parameters of ``nn.features.Linear``."""
    if maps.bias is not None:
        raise ValueError("a linear map with a constant cannot be converted here")
    kept = [ir for ir in maps.weights if wanted is None or ir in wanted]
    return {f"w{ir}": maps.joined(ir) * np.sqrt(maps.joined(ir).shape[0]) for ir in kept}


def network(matrices: list[np.ndarray], basis: Basis) -> Params:
    """Parameters of ``nn.radial.MLP`` for matrices of which the first meets the radial basis."""
    matrices = [matrices[0] * basis.factor, *matrices[1:]]
    return {f"w{k}": w * np.sqrt(w.shape[0]) for k, w in enumerate(matrices)}


class Stored(NamedTuple):
    """Where a path stands in the file."""

    output: int
    """Index among the outputs of the product."""
    columns: slice
    """Of the radial weights."""
    factor: float
    """Of those weights, over ours."""


class Paths(NamedTuple):
    """The paths of a stored convolution, in our order."""

    stored: dict[Path, Stored]
    size: int
    """Number of radial weights in the file, with those of features that are always zero."""
    l_max: int

    def columns(self, last: np.ndarray) -> np.ndarray:
        """The radial weights of a last layer, [..., paths and channels], in our order and with our factors."""
        if last.shape[-1] != self.size:
            raise ValueError(f"a radial network with {last.shape[-1]} outputs for {self.size} weights")
        return np.concatenate([last[..., path.columns] * path.factor for path in self.stored.values()], axis=-1)

    def reorder(self, maps: LinearMaps) -> Params:
        """Parameters of the linear map after the convolution."""
        out = {}
        for ir, blocks in maps.weights.items():
            matrix = np.concatenate([blocks[stored.output] for path, stored in self.stored.items() if path.ir_out == ir])
            out[f"w{ir}"] = matrix * np.sqrt(matrix.shape[0])
        return out


def convolution_paths(module: Module, inputs: list[e3nn.Irrep]) -> Paths:
    """Paths from ``inputs``, the irreps of the neighbours' features that are not always zero."""
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
        # Vectors point the other way in MACE: Y_l(-v) = (-1)^l Y_l(v).
        sign = (-1) ** path.l_edge * (-1 if degrees in FLIPPED else 1)
        stored[path] = Stored(i_out, slice(size, size + shape[0]), sign * factor / np.sqrt(path.ir_out.dim))
        size += shape[0]
    module.of("e3nn.o3._tensor_product._tensor_product.TensorProduct").drop()
    ours = find_paths(sorted(inputs), l_max, natural)
    if set(ours) != {path for path in stored if path.ir_in in inputs}:
        raise module.fail(f"its paths are not all those of natural parity up to l = {l_max}")
    return Paths({path: stored[path] for path in ours}, size, l_max)


def pair_networks(module: Module, basis: Basis, paths: Paths) -> Params:
    """Radial weights and density that depend on the distance alone."""
    *hidden, last = e3nn_mlp(module.child("conv_tp_weights"), SILU_SCALE)
    params: Params = {"convolution": {"radial": network([*hidden, paths.columns(last)], basis)}}
    if "density_fn" in module:
        density = e3nn_mlp(module.child("density_fn"), SILU_SCALE)
        if len(density) != 1:
            raise module.fail(f"a density network of {len(density)} layers cannot be converted; one of one layer can")
        params["normalize"] = {"density": network(density, basis)}
    return params


def ends_networks(module: Module, basis: Basis, paths: Paths) -> Params:
    """Radial weights that depend on the invariants of both atoms, through a linear map into the first layer."""
    first, *hidden, last = e3nn_mlp(module.child("conv_tp_weights"), SILU_SCALE)
    down = e3nn_linear(module.child("linear_down")).joined(SCALAR)
    radial, sender, receiver = np.split(first, [basis.n, basis.n + down.shape[1]])
    ends = {"sender": down @ sender, "receiver": down @ receiver}
    return {
        "convolution": {"radial": network([radial, *hidden, paths.columns(last)], basis)},
        **{name: {f"w{SCALAR}": w * np.sqrt(w.shape[0])} for name, w in ends.items()},
    }


def species_networks(module: Module, basis: Basis, paths: Paths) -> Params:
    """Radial weights and density that depend on the species of both atoms."""
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
    """Parameters of ``nn.radial_network.SpeciesMLP``; ``tables`` are the stored features of a slot's ends, by species."""
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
    """The linear map after the gate, with the factors of the activations."""
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
