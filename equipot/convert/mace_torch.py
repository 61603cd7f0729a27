"""Exact conversion of models of mace-torch (``.model`` files) to ``models.mace.MACE``.

Differences between the programs are folded into the weights: normalisations of activations and paths, signs of Clebsch-Gordan
coefficients and of edge vectors, couplings in another basis. Every stored value is either converted or refused by name.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot import units
from equipot.convert.mace_blocks import SCALAR, Basis, Block, Params, hidden_widths, interaction
from equipot.convert.mace_products import Couplings, Product, product, readout
from equipot.convert.torch_file import Record
from equipot.convert.torch_module import Module, e3nn_linear
from equipot.metadata import Metadata
from equipot.models.heads import join
from equipot.models.mace import MACE
from equipot.nn.features import PerSpecies, Shared
from equipot.nn.radial import (
    Agnesi,
    Bessel,
    Chebyshev,
    Gaussian,
    OnFeatures,
    OnWeights,
    PolynomialEnvelope,
    Radial,
    Soft,
)  # fmt: skip
from equipot.physics.zbl import ZBL
from equipot.potential import Potential

MODELS = ("mace.modules.models.ScaleShiftMACE", "mace.modules.models.MACE")
DESCRIPTIONS = (
    "lammps_mliap", "edge_irreps", "use_reduced_cg", "use_agnostic_product", "use_last_readout_only", "use_edge_irreps_first",
    "apply_cutoff", "correlation",
)  # fmt: skip
"""Attributes of the model that follow from its blocks."""

ZBL_LENGTH, ZBL_COULOMB = 0.529, 14.3996
"""Bohr radius (Å) and Coulomb constant (eV Å) in mace-torch."""


def recognise(content: Any) -> bool:
    """Return whether the content of a torch file is a MACE model, also if it cannot be converted."""
    return isinstance(content, Record) and content.source.startswith("mace.modules.")


def build(model: Record, head: str | None = None) -> Potential:
    """Convert the model of a ``.model`` file to a potential in double precision.

    Args:
        model: Content of the file.
        head: Head to convert; with None, the potential has all heads of the model.

    Raises:
        ValueError: the model cannot be converted, or ``head`` is unknown; the message says why.
    """
    names = heads(Module(model).of(*MODELS))
    if head is not None and head not in names:
        raise ValueError(f"the model has no head {head!r}; choose from {', '.join(names)}")
    if head is not None or len(names) == 1:
        return build_head(model, 0 if head is None else names.index(head), len(names))
    try:
        return join({name: build_head(model, k, len(names)) for k, name in enumerate(names)})
    except ValueError as error:
        raise ValueError(f"{error}; choose one of the heads {', '.join(names)}") from None


def heads(module: Module) -> list[str]:
    """Return the names of the heads; ``Default`` for a model that names none."""
    return [str(name) for name in module.attribute("heads", None) or ["Default"]]


def build_head(model: Record, chosen: int, count: int) -> Potential:
    """Convert head number ``chosen`` of ``count`` heads to a potential."""
    module = Module(model).of(*MODELS)
    module.ignore("heads", *DESCRIPTIONS)
    module.expect("use_so3", False)
    if "joint_embedding" in module:
        raise module.fail("joint_embedding: energies that depend on total charge, spin or other inputs cannot be converted")
    elements = tuple(int(z) for z in module.array("atomic_numbers"))
    scale, shift = scale_and_shift(module, chosen, count)
    radial, basis, cutoff = radial_basis(module)
    check_harmonics(module.child("spherical_harmonics"))
    layers = read_layers(module, basis)
    check_smooth(module, radial, layers)
    final = readouts(module, len(layers.blocks), chosen, count)
    radii = stored_radii(module, elements)
    scales = {"scale": np.full(len(elements), scale), "shift": np.full(len(elements), shift)}
    constants = {"avg_num_neighbors": np.float64(layers.blocks[0].avg_num_neighbors), **scales}
    constants |= {} if radii is None else {"radii": radii}
    term = MACE(
        cutoff=cutoff, elements=elements, **architecture(module, layers), readout_bias="b0" in final[-1],
        radial=dataclasses.replace(radial, mlp=layers.blocks[0].mlp), readout=hidden_widths(final[-1]),
        repulsion=pair_repulsion(module, radii, scale, cutoff),
    )  # fmt: skip
    embedding = module.child("node_embedding").of("mace.modules.blocks.LinearNodeEmbeddingBlock").child("linear")
    params: dict[str, Any] = {"embedding": {"w": e3nn_linear(embedding).joined(SCALAR)}}
    if isinstance(radial.basis, Bessel) and radial.basis.trainable:
        frequencies = module.child("radial_embedding").child("bessel_fn").array("bessel_weights")
        params["frequencies"] = frequencies.reshape(-1) * cutoff
    for k, (block, made, read) in enumerate(zip(*layers, final, strict=True)):
        params |= {f"interaction{k}": block.params, f"contraction{k}": made.contraction, f"linear{k}": made.linear}
        params[f"readout{k}"] = read
    free = atomic_energies(module, chosen, count, elements)
    if left := module.unread():
        raise ValueError(f"{left[0]} ({len(left)} such in all) is not known here: without it the potential might be another")
    metadata = Metadata(tuple(zip(elements, free, strict=True)), extra=(("architecture", module.kind),))
    return Potential(term, {"params": params, "constants": constants}, metadata)


def precision(model: Record) -> str:
    """Return the precision of the weights, ``float32`` or ``float64``."""
    return "float32" if Module(model).child("node_embedding").child("linear").single("weight") else "float64"


def per_head(module: Module, name: str, head: int, heads: int) -> float:
    """Read a constant that is one number or one number for each head."""
    values = np.atleast_1d(module.array(name))
    if values.shape not in ((1,), (heads,)):
        raise module.fail(f"{name} has the shape {values.shape} for {heads} heads")
    return float(values[head if len(values) > 1 else 0])


def scale_and_shift(module: Module, head: int, heads: int) -> tuple[float, float]:
    """Read scale and shift (eV) of the network's energy."""
    if module.source != MODELS[0]:
        return 1.0, 0.0
    block = module.child("scale_shift").of("mace.modules.blocks.ScaleShiftBlock")
    return per_head(block, "scale", head, heads), per_head(block, "shift", head, heads)


def atomic_energies(module: Module, head: int, heads: int, elements: tuple[int, ...]) -> list[float]:
    """Read the isolated-atom energy of each element (eV)."""
    block = module.child("atomic_energies_fn").of("mace.modules.blocks.AtomicEnergiesBlock")
    table = np.atleast_2d(block.array("atomic_energies"))
    if table.shape != (heads, len(elements)):
        raise block.fail(f"atomic_energies has the shape {table.shape} for {heads} heads and {len(elements)} elements")
    return table[head].tolist()


def stored_radii(module: Module, elements: tuple[int, ...]) -> np.ndarray | None:
    """Read the covalent radius of each element (Å); None for a model without distance transform and repulsion.

    Raises:
        ValueError: distance transform and repulsion have different radii.
    """
    transform = module.child("radial_embedding")
    owners = [transform.child("distance_transform")] if "distance_transform" in transform else []
    owners += [module.child("pair_repulsion_fn")] if "pair_repulsion_fn" in module else []
    tables = [owner.array("covalent_radii")[list(elements)] for owner in owners]
    if any(not np.array_equal(table, tables[0]) for table in tables):
        raise owners[-1].fail("covalent_radii that differ from those of the distance transform cannot be converted")
    return tables[0] if tables else None


def radial_basis(module: Module) -> tuple[Radial, Basis, float]:
    """Read the radial functions.

    Returns:
        Basis, envelope and transform, with default widths of the radial network; the basis in the file; the cutoff (Å).

    Raises:
        ValueError: the radial functions cannot be converted.
    """
    block = module.child("radial_embedding").of("mace.modules.blocks.RadialEmbeddingBlock")
    block.ignore("out_dim")
    cutoff = module.number("r_max")
    envelope = block.child("cutoff_fn").of("mace.modules.radial.PolynomialCutoff")
    power = envelope.number("p")
    if envelope.number("r_max") != cutoff or power != int(power):
        raise envelope.fail(f"p = {power} that is no integer, or an r_max other than {cutoff} Å, cannot be converted")
    envelope_on = OnFeatures() if block.attribute("apply_cutoff", True) else OnWeights()
    transform = distance_transform(block.child("distance_transform")) if "distance_transform" in block else None
    basis, factor = basis_functions(block.child("bessel_fn"), cutoff)
    return Radial(basis, PolynomialEnvelope(int(power)), transform, envelope_on=envelope_on), Basis(basis.n, factor), cutoff


def check_harmonics(module: Module) -> None:
    """Check that the normalisation of the spherical harmonics is equipot's.

    Raises:
        ValueError: the normalisation is another.
    """
    module.of("e3nn.o3._spherical_harmonics.SphericalHarmonics").ignore("irreps_in", "irreps_out", "_prof_str")
    module.ignore("_ls_list", "_lmax", "_is_range_lmax")
    module.expect("normalize", True)
    module.expect("normalization", "component")


def basis_functions(module: Module, cutoff: float) -> tuple[Bessel | Gaussian | Chebyshev, float]:
    """Read the radial basis; return equipot's basis, and the ratio of the basis functions in the file to equipot's."""
    kind = module.of(*(f"mace.modules.radial.{name}Basis" for name in ("Bessel", "Gaussian", "Chebychev"))).kind
    if kind == "BesselBasis":
        module.ignore("r_max")
        frequencies = module.array("bessel_weights").reshape(-1)
        n = len(frequencies)
        ideal = np.allclose(frequencies, np.arange(1, n + 1) * np.pi / cutoff, rtol=1e-14, atol=0)
        return Bessel(n, trainable=not ideal), module.number("prefactor") / np.sqrt(2 / cutoff)
    if kind == "GaussianBasis":
        centers = module.array("gaussian_weights").reshape(-1)
        step = cutoff / (len(centers) - 1)
        ideal = np.allclose(centers, np.linspace(0, cutoff, len(centers)), rtol=1e-6)
        if not (ideal and np.isclose(module.number("coeff"), -0.5 / step**2, rtol=1e-6)):
            raise module.fail("Gaussians that were trained cannot be converted")
        return Gaussian(len(centers)), 1.0
    module.ignore("r_max", "num_basis")
    n = module.array("n").size
    return Chebyshev(n, (-1.0, 1.0)), 1.0


def distance_transform(module: Module) -> Agnesi | Soft:
    """Read the transform of distances before the basis."""
    if module.of("mace.modules.radial.AgnesiTransform", "mace.modules.radial.SoftTransform").kind == "SoftTransform":
        return Soft(module.number("alpha"))
    return Agnesi(module.number("a"), module.number("q"), module.number("p"))


def pair_repulsion(module: Module, radii: np.ndarray | None, scale: float, cutoff: float) -> ZBL | None:
    """Read the short-range repulsion, if there is one, with the factor ``scale`` that the model applies to it.

    Raises:
        ValueError: the repulsion would jump at the cutoff (Å).
    """
    if not module.attribute("pair_repulsion", False):
        return None
    block = module.child("pair_repulsion_fn").of("mace.modules.radial.ZBLBasis")
    assert radii is not None, "a repulsion stores covalent radii"
    if 2 * max(radii) > cutoff:
        raise block.fail(f"a repulsion that reaches beyond the cutoff of {cutoff} Å, where it would jump, cannot be converted")
    factor = scale * ZBL_COULOMB / (units.hartree * units.bohr)
    return ZBL(
        envelope=PolynomialEnvelope(int(block.number("p"))), length=ZBL_LENGTH * block.number("a_prefactor"),
        exponent=block.number("a_exp"), coefficients=tuple((factor * block.array("c")).tolist()),
    )  # fmt: skip


class Layers(NamedTuple):
    """Interaction and product blocks, in the order of the layers."""

    blocks: list[Block]
    products: list[Product]


def read_layers(module: Module, basis: Basis) -> Layers:
    """Read all layers; of the features of the last layer only the invariants."""
    interactions, products = list(module.child("interactions")), list(module.child("products"))
    if not interactions or len(products) != len(interactions) or module.number("num_interactions") != len(interactions):
        raise module.fail(f"{len(interactions)} interactions and {len(products)} products")
    couplings, out = Couplings(), Layers([], [])
    for block, after in zip(interactions, products, strict=True):
        out.products.append(product(after, [SCALAR] if block is interactions[-1] else None, couplings))
        out.blocks.append(interaction(block, basis, out.products[-1].irreps))
        if not after.attribute("use_sc", True) and out.blocks[-1].kind.has_bypass:
            raise after.fail("use_sc = False cannot be converted after an interaction that features bypass")
    return out


def check_smooth(module: Module, radial: Radial, layers: Layers) -> None:
    """Check that the energy is continuous where an atom crosses the cutoff.

    Raises:
        ValueError: the energy would jump.
    """
    late = [block.kind for block in layers.blocks if block.kind.weights_may_stay]
    if late and not radial.envelope_on.is_separate:
        raise module.fail(
            f"apply_cutoff = True, but the radial networks of {type(late[0]).__name__} do not vanish where radial features do: "
            "its energy jumps when an atom crosses the cutoff, and is not converted; train with apply_cutoff = False"
        )


def architecture(module: Module, layers: Layers) -> dict[str, Any]:
    """Return the fields of ``MACE`` that follow from the layers.

    Raises:
        ValueError: layers differ in a field that MACE has only once.
    """
    blocks, products = layers

    def same(what: str, values: list[Any]) -> Any:
        if any(value != values[0] for value in values):
            raise module.fail(f"{what} that differ between layers cannot be converted: {', '.join(map(str, values))}")
        return values[0]

    hidden = same("hidden irreps", [made.irreps for made in products[:-1]] or [[SCALAR]])
    if e3nn.Irreps(hidden) != e3nn.Irreps.spherical_harmonics(len(hidden) - 1):
        raise module.fail(f"hidden irreps {hidden} cannot be converted; all l up to some l with natural parity can")
    channels = same("channels", [block.channels for block in blocks])
    sent = {block.message_channels for block in blocks}
    degrees = {made.correlation for made in products}
    same("radial networks", [block.mlp for block in blocks])
    same("avg_num_neighbors", [block.avg_num_neighbors for block in blocks])
    return {
        "channels": channels,
        "hidden_l": len(hidden) - 1,
        "l_max": same("l_max", [block.l_max for block in blocks]),
        "message_channels": None if sent == {channels} else tuple(block.message_channels for block in blocks),
        "correlation": degrees.pop() if len(degrees) == 1 else tuple(made.correlation for made in products),
        "contraction": Shared() if same("kinds of weights", [made.shared for made in products]) else PerSpecies(),
        "layers": len(blocks),
        "first": blocks[0].kind,
        "others": same("interactions", [block.kind for block in blocks[1:] or blocks]),
    }


def readouts(module: Module, layers: int, head: int, heads: int) -> list[Params]:
    """Read the readout of each layer; a layer without a readout gets one with weights zero."""
    made = [readout(block, head, heads) for block in module.child("readouts")]
    if len(made) not in (1, layers):
        raise module.fail(f"{len(made)} readouts for {layers} layers")
    channels = made[-1]["w0"].shape[0]
    return [{"w0": np.zeros((channels, 1))}] * (layers - len(made)) + made
