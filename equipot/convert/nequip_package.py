"""Conversion of packages of NequIP (``.nequip.zip``, written by ``nequip-package``); neither code nor pickle of a package runs.

A package holds the weights with which NequIP predicts. Its settings are those of a training run, which may refer to other
files; the properties of the model are therefore read from its modules, not from the settings.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import e3nn_jax as e3nn
import numpy as np

from equipot.convert import nequip_model, torch_file
from equipot.convert.e3nn_torch import SILU, TANH
from equipot.convert.nequip import elements
from equipot.convert.nequip_model import Model
from equipot.convert.torch_module import Module
from equipot.potential import Potential

RESOURCE = "model/eager_model.pkl"
"""Path of the pickle of the modules in a package."""
CLASSES = ("nequip", "e3nn", "torch")
"""Python packages whose classes the pickle may name; they are read as inert ``Record``."""
KNOWN = {
    "e3nn.math._normalize_activation.normalize2mom", "e3nn.nn._activation.Activation", "e3nn.nn._extract.Extract",
    "e3nn.nn._gate.Gate", "e3nn.nn._gate._Sortcut", "e3nn.o3._linear.Linear", "e3nn.o3._spherical_harmonics.SphericalHarmonics",
    "e3nn.o3._tensor_product._sub.ElementwiseTensorProduct", "e3nn.o3._tensor_product._sub.FullyConnectedTensorProduct",
    "e3nn.o3._tensor_product._tensor_product.TensorProduct", "nequip.nn._ghost_exchange_base.NoOpGhostExchangeModule",
    "nequip.nn._graph_mixin.SequentialGraphNetwork", "nequip.nn._tp_scatter_base.TensorProductScatter",
    "nequip.nn.atomwise.AtomwiseReduce", "nequip.nn.atomwise.PerTypeScaleShift", "nequip.nn.convnetlayer.ConvNetLayer",
    "nequip.nn.embedding._edge.BesselEdgeLengthEncoding", "nequip.nn.embedding._edge.EdgeLengthNormalizer",
    "nequip.nn.embedding._edge.SphericalHarmonicEdgeAttrs", "nequip.nn.embedding.cutoffs.PolynomialCutoff",
    "nequip.nn.embedding.node.NodeTypeEmbed", "nequip.nn.grad_output.ForceStressOutput", "nequip.nn.graph_model.GraphModel",
    "nequip.nn.interaction_block.InteractionBlock", "nequip.nn.misc.ApplyFactor", "nequip.nn.mlp.ScalarLinearLayer",
    "nequip.nn.mlp.ScalarMLP", "nequip.nn.mlp.ScalarMLPFunction", "nequip.nn.norm.AvgNumNeighborsNorm",
    "nequip.nn.pair_potential.ZBL", "nequip.nn.pair_potential._ZBL", "torch.nn.modules.activation.SiLU",
    "torch.nn.modules.container.ModuleDict", "torch.nn.modules.container.ModuleList", "torch.nn.modules.container.Sequential",
    "torch.nn.modules.sparse.Embedding",
}  # fmt: skip
"""Classes of modules that can be converted."""
STAGES = {
    "type_embed", "spharm", "edge_norm", "bessel_encode", "factor", "per_atom_energy_readout", "per_type_energy_scale_shift",
    "pair_potential", "total_energy_sum",
}  # fmt: skip
"""Names of the stages of a model besides its layers."""


def recognise(path: Path) -> bool:
    """Return whether a file is a package of NequIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == RESOURCE for name in archive.namelist())


def build(path: Path, head: str | None = None) -> tuple[Potential, str]:
    """Convert a package to a potential in double precision; also return the precision of the weights in the file.

    Raises:
        ValueError: the package is damaged or cannot be converted, or ``head`` is not None.
    """
    if head is not None:
        raise ValueError(f"head {head!r}: NequIP has only one level of theory; leave the head out")
    models = Module(torch_file.load_packaged(path, RESOURCE, CLASSES), "package")
    names = [module.path.rpartition(".")[2] for module in models]
    if names != ["sole_model"]:
        raise ValueError(f"a package with the models {', '.join(names)} cannot be converted; one with a single model can")
    graph_model = models.child("sole_model")
    for module in all_modules(graph_model):
        if module.source not in KNOWN:
            raise ValueError(f"{module.path}: a {module.source} cannot be converted")
    stages = graph_model.child("model").of("nequip.nn.grad_output.ForceStressOutput").child("func")
    model = read_model(stages)
    return nequip_model.build(model, tensors(stages)), str(graph_model.attribute("model_dtype"))


def all_modules(module: Module) -> list[Module]:
    """List a module and all of its submodules, of any depth."""
    return [module, *(inner for child in module for inner in all_modules(child))]


def tensors(module: Module, stem: str = "") -> dict[str, np.ndarray]:
    """Return the tensors of a module and its submodules, by their names in a state dict."""
    out = {f"{stem}{name}": value for name, value in module.stored().items()}
    for child in module:
        out |= tensors(child, f"{stem}{child.path.rpartition('.')[2]}.")
    return out


def read_model(stages: Module) -> Model:
    """Read the properties of a model from its modules.

    Raises:
        ValueError: equipot's NequIP cannot represent a module.
    """
    names = [module.path.rpartition(".")[2] for module in stages]
    layers = [name for name in names if name not in STAGES]
    if layers != [f"layer{t}_convnet" for t in range(len(layers))]:
        raise ValueError(f"a model with the stages {', '.join(names)} cannot be converted")
    cutoff = stages.child("edge_norm").number("r_max")
    check_stages(stages, cutoff)
    species = elements(stages.child("per_type_energy_scale_shift").attribute("type_names"))
    neighbors = {check_layer(stages.child(name), len(species)) for name in layers}
    if len(neighbors) > 1:
        raise ValueError("layers with different avg_num_neighbors cannot be converted")
    p = stages.child("bessel_encode").child("cutoff").number("p")
    repulsion = stages.child("pair_potential") if "pair_potential" in names else None
    return Model(
        species,
        cutoff,
        e3nn.Irreps(stages.child("spharm").irreps("irreps_edge_sh")),
        tuple(e3nn.Irreps(stages.child(name).irreps("feature_irreps_hidden")) for name in layers),
        p,
        neighbors.pop(),
        # Before 0.17 a pair potential ended as the messages do.
        repulsion.child("cutoff").number("p") if repulsion is not None and "cutoff" in repulsion else p,
    )


def check_stages(stages: Module, cutoff: float) -> None:
    """Check that the stages besides the layers compute the functions of equipot's NequIP with a cutoff (Å).

    Raises:
        ValueError: a stage computes another function.
    """
    stages.child("type_embed").expect("do_categorical_graph_field_embed", False)
    harmonics = stages.child("spharm").child("sh")
    harmonics.expect("normalize", True)
    harmonics.expect("normalization", "component")
    total = stages.child("total_energy_sum")
    total.expect("reduce", "sum")
    total.expect("constant", 1.0)
    factor = stages.child("factor")
    if not np.isclose(factor.number("factor"), 2 * np.pi / cutoff**2, rtol=1e-6):
        raise factor.fail(f"a radial basis with {factor.number('factor'):g} in front cannot be converted; 2 pi / cutoff^2 can")
    check_network(stages.child("per_atom_energy_readout").child("mlp_module"))


def check_layer(layer: Module, count: int) -> tuple[float, ...]:
    """Check that a layer computes the function of a layer of equipot's NequIP.

    Returns:
        Mean number of neighbours of each of ``count`` types.

    Raises:
        ValueError: the layer computes another function.
    """
    layer.expect("resnet", False)
    gate = layer.child("equivariant_nonlin").of("e3nn.nn._gate.Gate")
    for parity, activation in activations(gate):
        name, known = ("silu", SILU) if parity == 1 else ("tanh", TANH)
        if (activation.attribute("f").source.rpartition(".")[2], activation.number("cst")) != (name, known):
            raise activation.fail(f"cannot be converted; {name} times {known} can")
    conv = layer.child("conv")
    check_network(conv.child("edge_mlp"))
    if "avg_num_neighbors_norm" not in conv:
        factor = conv.attribute("scatter_norm_factor")
        return (1.0 if factor is None else float(factor) ** -2,) * count
    found = conv.child("avg_num_neighbors_norm").array("norm_const").reshape(-1)
    return tuple((np.broadcast_to(found, count) ** -2).tolist())


def activations(gate: Module) -> list[tuple[int, Module]]:
    """List the activations of a gate, with the parity of the scalars that each acts on."""
    return [
        (parity, Module(record, f"{gate.path}.{name}").of("e3nn.math._normalize_activation.normalize2mom"))
        for name in ("act_scalars", "act_gates")
        for _, (_, parity), record in gate.child(name).attribute("paths")
    ]


def check_network(network: Module) -> None:
    """Check that a network consists of linear layers with NequIP's scaling and of SiLU between the layers.

    Raises:
        ValueError: the network has other layers or another scaling.
    """
    for k, layer in enumerate(network.child("mlp")):
        if k % 2:
            layer.of("torch.nn.modules.activation.SiLU")
            continue
        layer.of("nequip.nn.mlp.ScalarLinearLayer")
        expected = np.sqrt((2 if k else 1) / layer.number("in_features"))
        if "bias" in layer or not np.isclose(layer.number("alpha"), expected, rtol=1e-6):
            raise layer.fail(f"a linear layer with a bias, or with another factor than {expected:g}, cannot be converted")
