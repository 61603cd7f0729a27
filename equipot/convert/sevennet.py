"""Conversion of SevenNet checkpoints (Park et al., J. Chem. Theory Comput. 20, 4857 (2024), arXiv:2402.03789) to NequIP.

SevenNet is NequIP in e3nn's conventions. Weights are copied up to constant factors, which are folded into the next linear map
in double precision: e3nn's normalisation of activations, the prefactor of the radial basis, divisors of the sums over
neighbours, and signs of coupling coefficients in files of older versions. A modality (one of several levels of theory) adds
constants to linear maps: the constants of the chosen modality become biases.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot.convert.e3nn_torch import SILU, Weights, linear, parameters, torch_order
from equipot.convert.gated_layers import EVEN, entering, gains, our_columns, our_paths, our_rows, signs, stored_paths
from equipot.metadata import Metadata
from equipot.models.nequip import BothParities, NequIP, PerSpecies, RotationsOnly, Shared
from equipot.nn.edge_features import SolidHarmonics, SphericalHarmonics
from equipot.nn.features import regroup
from equipot.nn.normalize import MeanNeighbors
from equipot.nn.radial import SILU_SCALE, XPLOR, Bessel, PolynomialEnvelope, Radial
from equipot.potential import Potential
from equipot.term import cutoff_of

OLD_NAMES = {
    "EdgeEmbedding": "edge_embedding",
    "reducing nn input to hidden": "reduce_input_to_hidden",
    "reducing nn hidden to energy": "reduce_hidden_to_energy",
    "rescale atomic energy": "rescale_atomic_energy",
    "denumerator": "denominator",
}
"""Names of modules before version 0.10, and their present names."""
FOLLOWS = re.compile(r"output_mask$|_w3j_\d_\d_\d$|^\d+_equivariant_gate\.|convolution\.convolution\.weight$")
"""Names of buffers of e3nn that follow from the irreps."""
EXPECTED = {
    "interaction_type": ("nequip",),
    "act_radial": ("silu",),
    "act_gate": ({"e": "silu", "o": "tanh"},),
    "act_scalar": ({"e": "silu", "o": "tanh"},),
    "readout_as_fcn": (False,),
    "lmax_edge": (-1, 0),
    "lmax_node": (-1, 0),
    "self_connection_type": ("linear", "nequip"),
    "use_modal_node_embedding": (False, None),
    "use_modal_wise_scale": (False, None),
}
"""Settings that change the functional form, with the values that can be converted."""


class Layout(NamedTuple):
    """Architecture of a model and arrangement of its weights in the file."""

    term: NequIP
    hidden: list[e3nn.Irreps]
    """Irreps before the first layer and after each layer, in the file's order."""
    modality: int | None
    """Index of the chosen modality; None for a model without modalities."""
    modalities: int
    """Number of modalities."""
    modal: dict[str, bool]
    """Whether modalities add constants in the linear maps ``up``, ``down`` and ``hidden``."""
    bias: bool
    """Whether linear maps have biases in the file."""
    sorted_paths: bool
    """Whether radial weights are in the order of the outputs, as since version 0.11."""


def recognise(content: Any) -> bool:
    """Return whether the content of a torch file is a checkpoint of SevenNet."""
    return (
        isinstance(content, dict)
        and "model_state_dict" in content
        and isinstance(content.get("config"), dict)
        and content["config"].get("_model_type") == "E3_equivariant_model"
    )


def build(content: dict[str, Any], head: str | None = None) -> Potential:
    """Convert a checkpoint to a potential in double precision.

    Args:
        content: Content of the file.
        head: Modality, of a model with several.

    Raises:
        ValueError: the checkpoint cannot be converted, or the modality is missing or unknown.
    """
    config = content["config"]
    layout = read_layout(config, head)
    term = layout.term
    weights = Weights({present_name(name): value for name, value in content["model_state_dict"].items()})
    embedding = linear(weights.take("onehot_to_feature_x.linear.weight"), f"{len(term.elements)}x0e", layout.hidden[0])[EVEN]
    constant = bias_of(weights, "onehot_to_feature_x", layout)
    params: dict[str, Any] = {
        "embedding": {"w": embedding + (0 if constant is None else constant)},
    }
    if isinstance(term.radial.basis, Bessel) and term.radial.basis.trainable:
        params["frequencies"] = weights.take("edge_embedding.basis_function.coeffs") * term.cutoff
    denominators = [weights.take(f"{t}_convolution.denominator").item() for t in range(term.layers)]
    for t, divisor in enumerate(denominators):
        params[f"layer{t}"] = convert_layer(weights, layout, t, divisor / denominators[0])
    scale, shift = rescaling(weights, layout)
    params["readout"], offset = convert_readout(weights, layout)
    if left := [name for name in weights if not FOLLOWS.search(name) and weights.left[name].size]:
        raise ValueError(f"the checkpoint has weights that SevenNet models known here do not have: {', '.join(left)}")
    constants = {"avg_num_neighbors": np.array(denominators[0]), "scale": scale, "shift": np.zeros_like(shift)}
    free = tuple(sorted(zip(term.elements, (shift + scale * offset).tolist(), strict=True)))
    return Potential(term, {"params": params, "constants": constants}, Metadata(atomic_energies=free))


def precision(content: dict[str, Any]) -> str:
    """Return the precision of the weights, such as ``float32``."""
    return str(np.asarray(next(iter(content["model_state_dict"].values()))).dtype)


def present_name(name: str) -> str:
    """Return the present name of a tensor of any version."""
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name.replace(" ", "_")


def read_layout(config: dict[str, Any], head: str | None) -> Layout:
    """Read architecture and arrangement of the weights from the config of a checkpoint.

    Raises:
        ValueError: as ``build``.
    """
    for key, known in EXPECTED.items():
        if config.get(key, known[0]) not in known:
            raise ValueError(f"SevenNet's {key}: {config[key]!r} cannot be converted; known: {', '.join(map(repr, known))}")
    if config.get("cuequivariance_config", {}).get("use"):
        raise ValueError("weights in the layout of cuEquivariance cannot be converted; write the checkpoint with e3nn")
    types = {int(z): int(k) for z, k in config["_type_map"].items()}
    term = NequIP(
        elements=tuple(sorted(types, key=types.__getitem__)),
        cutoff=float(config["cutoff"]),
        l_max=config["lmax"],
        channels=widths(config),
        parity=BothParities() if config["is_parity"] else RotationsOnly(),
        layers=config["num_convolution_layer"],
        radial=radial(config),
        harmonics=SphericalHarmonics() if config.get("_normalize_sph", not is_before(config, 10)) else SolidHarmonics(),
        self_connection=Shared() if config["self_connection_type"] == "linear" else PerSpecies(),
        normalization=MeanNeighbors(1.0),
        bias=bool(config["use_bias_in_linear"] or config.get("use_modality")),
    )
    names, modality = config.get("_modal_map") if config.get("use_modality") else None, None
    if names:
        listed = ", ".join(sorted(names))
        if head not in names:
            said = "it has several levels of theory" if head is None else f"it has no level of theory {head!r}"
            raise ValueError(f"{said}; choose a head from {listed}")
        modality = int(names[head])
    elif head is not None:
        raise ValueError(f"head {head!r}: this model has only one level of theory; leave the head out")
    places = {"up": "use_modal_self_inter_intro", "down": "use_modal_self_inter_outro", "hidden": "use_modal_output_block"}
    layout = Layout(
        term.clone(readout=None), [], modality, len(names or ()), {k: bool(names and config[v]) for k, v in places.items()},
        bool(config["use_bias_in_linear"]), not is_before(config, 11),
    )  # fmt: skip
    hidden = hidden_irreps(config, term)
    return layout._replace(hidden=hidden, term=term.clone(readout=hidden[-1].dim // 2))


def is_before(config: dict[str, Any], minor: int) -> bool:
    """Return whether SevenNet was older than version 0.``minor``."""
    first, second = (int(part) for part in str(config["version"]).split(".")[:2])
    return (first, second) < (0, minor)


def radial(config: dict[str, Any]) -> Radial:
    """Read the radial functions from the config of a checkpoint.

    Raises:
        ValueError: the basis or the cutoff function is unknown.
    """
    basis, envelope = dict(config["radial_basis"]), dict(config["cutoff_function"])
    if basis.pop("radial_basis_name") != "bessel" or set(basis) - {"bessel_basis_num", "trainable_coeff"}:
        raise ValueError(f"SevenNet's radial_basis {config['radial_basis']} cannot be converted; known: bessel")
    kind = envelope.pop("cutoff_function_name")
    if kind not in ("XPLOR", "poly_cut"):
        raise ValueError(f"SevenNet's cutoff function {kind!r} cannot be converted; known: poly_cut, XPLOR")
    return Radial(
        Bessel(basis.get("bessel_basis_num", 8), trainable=basis.get("trainable_coeff", True)),
        XPLOR(float(envelope["cutoff_on"])) if kind == "XPLOR" else PolynomialEnvelope(envelope.get("poly_cut_p_value", 6)),
        mlp=tuple(config["weight_nn_hidden_neurons"]),
    )


def widths(config: dict[str, Any]) -> int | tuple[int, ...]:
    """Read the number of channels: one for all l, or one for each l.

    Raises:
        ValueError: irreps of one l differ in their number of channels, or an l is missing.
    """
    if not config["irreps_manual"]:
        return config["channel"]
    found: dict[int, int] = {}
    for irreps in config["irreps_manual"]:
        for mul, ir in e3nn.Irreps(str(irreps)):
            if found.setdefault(ir.l, mul) != mul:
                raise ValueError(f"irreps_manual {config['irreps_manual']} cannot be converted: l = {ir.l} has several widths")
    if sorted(found) != list(range(config["lmax"] + 1)):
        raise ValueError(f"irreps_manual {config['irreps_manual']} cannot be converted: not all l from 0 to {config['lmax']}")
    return tuple(found[l] for l in sorted(found))


def hidden_irreps(config: dict[str, Any], term: NequIP) -> list[e3nn.Irreps]:
    """List the irreps before the first layer and after each layer, in the file's order.

    Raises:
        ValueError: the irreps in the config are not those of the term.
    """
    first = term.channels if isinstance(term.channels, int) else term.channels[0]
    hidden = [e3nn.Irreps(f"{first}x0e")]
    for t in range(term.layers):
        ours = regroup(term.features([ir for _, ir in hidden[-1]], last=t == term.layers - 1))
        hidden.append(e3nn.Irreps([(ours[ir], ir) for ir in torch_order(ours)]))
    if config["irreps_manual"]:
        given = [e3nn.Irreps(str(irreps)) for irreps in config["irreps_manual"]]
        if [regroup(irreps) for irreps in given] != [regroup(irreps) for irreps in hidden]:
            raise ValueError(f"irreps_manual {config['irreps_manual']} cannot be converted: the model would have {hidden}")
        return given
    return hidden


def convert_layer(weights: Weights, layout: Layout, t: int, divisor: float) -> dict[str, Any]:
    """Make the parameters of layer ``t``; ``divisor`` is the divisor of its messages relative to the first layer's."""
    term, x, after = layout.term, layout.hidden[t], layout.hidden[t + 1]
    gain = gains(x) if t else {ir: 1.0 for _, ir in x}
    into, arrange = entering(after)

    def mix(name: str, place: str, source: e3nn.Irreps, target: e3nn.Irreps) -> tuple[dict, np.ndarray | None]:
        return take_linear(weights, layout, f"{t}_{name}", place, source, target)

    last, top = t == term.layers - 1, max(ir.l for _, ir in after)
    stored = stored_paths(term, x, lambda ir: ir.l <= top and (ir.p == 1 or not last), layout.sorted_paths)
    up, up_bias = mix("self_interaction_1", "up", x, x)
    down, down_bias = mix("self_interaction_2", "down", stored.irreps, into)
    ours = our_paths(term, x, after)
    flips = signs(weights, f"{t}_convolution.convolution._compiled_main_left_right._w3j_", ours)
    params = {
        "up": parameters({ir: gain[ir] * w for ir, w in up.items()}, up_bias),
        "convolution": {"radial": radial_mlp(weights, t, term, flips, [stored.columns[path] for path in ours])},
    }
    down = {ir: down[ir][rows] / divisor for ir, rows in our_rows(ours, stored).items()}
    down[EVEN] = down[EVEN][:, arrange]
    params["down"] = parameters(down, None if down_bias is None else down_bias[arrange])
    params["self"] = parameters(self_connection(weights, layout, t, gain, into, arrange))
    return params


def take_linear(
    weights: Weights, layout: Layout, name: str, place: str, source: e3nn.Irreps, target: e3nn.Irreps
) -> tuple[dict[e3nn.Irrep, np.ndarray], np.ndarray | None]:
    """Read a linear map; return its matrices by irrep, and its bias with the constants of the chosen modality.

    Args:
        weights: Tensors of the checkpoint.
        layout: Architecture and arrangement of the weights.
        name: Name of the map in the file.
        place: Key of the map in ``layout.modal``.
        source: Input irreps.
        target: Output irreps.
    """
    modal = layout.modal[place]
    extra = e3nn.Irreps(f"{layout.modalities}x0e" if modal else "")
    matrices = linear(weights.take(f"{name}.linear.weight"), source + extra, target)
    bias = bias_of(weights, name, layout)
    if modal:
        added = matrices[EVEN][-layout.modalities :][layout.modality]
        matrices[EVEN] = matrices[EVEN][: -layout.modalities]
        bias = added if bias is None else bias + added
    if layout.term.bias and bias is None:
        bias = np.zeros(matrices[EVEN].shape[1])
    return matrices, bias


def bias_of(weights: Weights, name: str, layout: Layout) -> np.ndarray | None:
    """Read the bias of a linear map; None for a model without biases."""
    return weights.take(f"{name}.linear.bias") if layout.bias else None


def radial_mlp(weights: Weights, t: int, term: NequIP, signs: list[float], columns: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Make the parameters of the radial network of layer ``t``; ``signs`` and ``columns`` as in ``our_columns``."""
    depth, name = len(term.radial.mlp), f"{t}_convolution.weight_nn"
    out = {f"w{k}": weights.take(f"{name}.layer{k}.weight") for k in range(depth + 1)}
    for k in range(1, depth + 1):
        out[f"w{k}"] *= SILU / SILU_SCALE
    # The prefactor of the basis is 2/c in SevenNet, sqrt(2/c) in equipot.
    out["w0"] *= np.sqrt(2 / cutoff_of(term))
    out[f"w{depth}"] = our_columns(out[f"w{depth}"], signs, columns, name)
    return out


def self_connection(
    weights: Weights, layout: Layout, t: int, gain: dict, entering: e3nn.Irreps, arrange: np.ndarray
) -> dict[e3nn.Irrep, np.ndarray]:
    """Read the matrices of the self-connection of layer ``t`` by irrep, [inputs, outputs] or [species, inputs, outputs]."""
    x, count = layout.hidden[t], len(layout.term.elements)
    assert layout.term.self_connection is not None
    if not layout.term.self_connection.weight_axes(count):
        matrices = linear(weights.take(f"{t}_self_connection_intro.linear.weight"), x, entering)
    else:
        # Weights of a tensor product with the one-hot species: [inputs, species, outputs] for each irrep.
        flat = weights.take(f"{t}_self_connection_intro.fc_tensor_product.weight")
        mixed = linear(flat, e3nn.Irreps([(mul * count, ir) for mul, ir in x]), entering)
        matrices = {ir: np.swapaxes(w.reshape(-1, count, w.shape[-1]), 0, 1) for ir, w in mixed.items()}
    if EVEN in matrices:
        matrices[EVEN] = matrices[EVEN][..., arrange]
    return {ir: gain[ir] * w for ir, w in matrices.items()}


def convert_readout(weights: Weights, layout: Layout) -> tuple[dict, float]:
    """Make the parameters of the two linear layers of the readout; also return the sum of their biases before scaling."""
    x = layout.hidden[-1]
    width = x.dim // 2
    hidden, bias = take_linear(weights, layout, "reduce_input_to_hidden", "hidden", x, f"{width}x0e")
    energy = linear(weights.take("reduce_hidden_to_energy.linear.weight"), f"{width}x0e", "1x0e")[EVEN]
    offset = 0.0 if bias is None else (bias @ energy).item()
    if layout.bias:
        offset += weights.take("reduce_hidden_to_energy.linear.bias").item()
    matrices = {EVEN: SILU / SILU_SCALE * hidden[EVEN]}
    return {"hidden": parameters(matrices), "out": {"w0": energy * np.sqrt(width)}}, offset


def rescaling(weights: Weights, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Read scale and shift (eV) of each element."""
    count = len(layout.term.elements)
    scale, shift = (weights.take(f"rescale_atomic_energy.{name}") for name in ("scale", "shift"))
    if shift.ndim == 2:
        shift = shift[layout.modality]
    return np.broadcast_to(scale, count).copy(), np.broadcast_to(shift, count).copy()
