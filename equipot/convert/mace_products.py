"""Conversion of product blocks and readouts of mace-torch to modules of ``models.mace.MACE``."""

from __future__ import annotations

import functools
import hashlib
import itertools
from typing import NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot.convert.mace_blocks import SCALAR, SILU, Params, linear, refuse_kernels
from equipot.convert.torch_module import LinearMaps, Module, e3nn_activation, e3nn_linear
from equipot.nn.contraction import basis, fold
from equipot.nn.radial import SILU_SCALE

TOLERANCE = 1e-10
"""Largest deviation of a coupling in the file from equipot's, for coupling coefficients of order one."""
SINGLE_TOLERANCE = 1e-6
"""Largest deviation of a coupling that the file holds in single precision."""


class Product(NamedTuple):
    """A converted product block: a symmetric contraction and the linear map after the contraction."""

    contraction: Params
    """Parameters of ``nn.contraction.SymmetricContraction``."""
    linear: Params
    """Parameters of ``nn.features.Linear``."""
    correlation: int
    """Highest degree of the contraction."""
    shared: bool
    """Whether one set of weights serves all species."""
    irreps: list[e3nn.Irrep]
    """Output irreps."""


class Couplings:
    """Transformation of the couplings in a file to equipot's couplings; each is computed once."""

    def __init__(self) -> None:
        self.known: dict[bytes, np.ndarray] = {}

    def __call__(self, module: Module, name: str, irreps: e3nn.Irreps, degree: int, ir: e3nn.Irrep) -> np.ndarray:
        """Compute the matrix [ours, stored] that expands the symmetric part of a coupling in equipot's basis.

        Args:
            module: Module with the coupling.
            name: Name of the coupling in the module.
            irreps: Irreps of the atomic basis, each once.
            degree: Number of factors.
            ir: Output irrep.

        Raises:
            ValueError: the coupling has another shape, or is not equivariant.
        """
        stored = module.array(name)
        stored = stored if ir.l else stored[None]
        expected = (ir.dim, *(irreps.dim,) * degree)
        if stored.shape[:-1] != expected:
            raise module.fail(f"{name} has the shape {stored.shape}, not {expected} and one axis more")
        key = hashlib.sha256(stored.tobytes() + f"{irreps} {degree} {ir}".encode()).digest()
        if key not in self.known:
            orders = list(itertools.permutations(range(1, degree + 1)))
            total = functools.reduce(np.add, [stored.transpose(*order, degree + 1, 0) for order in orders])
            self.known[key] = self._solve(module, name, fold(total / len(orders), degree), basis(irreps, degree, ir))
        return self.known[key]

    def _solve(self, module: Module, name: str, stored: np.ndarray, ours: np.ndarray) -> np.ndarray:
        """Solve for the matrix [ours, stored] between two sets of polynomials [monomials, k, d]."""
        flat = ours.swapaxes(1, 2).reshape(-1, ours.shape[1])
        target = stored.swapaxes(1, 2).reshape(-1, stored.shape[1])
        matrix = np.linalg.lstsq(flat, target)[0]
        deviation = np.abs(flat @ matrix - target).max(initial=0.0)
        if deviation > (SINGLE_TOLERANCE if module.single(name) else TOLERANCE):
            raise module.fail(f"{name} deviates by {deviation:.1e} from all that is equivariant; the file may be damaged")
        return matrix


def product(module: Module, wanted: list[e3nn.Irrep] | None, couplings: Couplings) -> Product:
    """Convert a product block, for the output irreps ``wanted`` or for all."""
    module.of("mace.modules.blocks.EquivariantProductBasisBlock")
    refuse_kernels(module)
    shared = bool(module.attribute("use_agnostic_product", False))
    contraction = module.child("symmetric_contractions").of("mace.modules.symmetric_contraction.SymmetricContraction")
    contraction.ignore("irreps_in", "internal_weights", "shared_weights")
    irreps = [ir for _, ir in contraction.irreps("irreps_out")]
    params: Params = {}
    degrees = set()
    for part, ir in zip(contraction.child("contractions"), irreps, strict=True):
        degrees.add(int(part.of("mace.modules.symmetric_contraction.Contraction").number("correlation")))
        if wanted is None or ir in wanted:
            params |= contraction_weights(part, ir, couplings)
        else:
            # Features of the last layer that are not invariant are not used.
            part.drop()
    if len(degrees) != 1:
        raise contraction.fail(f"different correlations for different irreps ({sorted(degrees)}) cannot be converted")
    after = linear(e3nn_linear(module.child("linear")), wanted)
    return Product(params, after, degrees.pop(), shared, [ir for ir in irreps if wanted is None or ir in wanted])


def contraction_weights(module: Module, ir: e3nn.Irrep, couplings: Couplings) -> Params:
    """Make the parameters of ``nn.contraction.SymmetricContraction`` for one output irrep."""
    module.ignore("num_features", "contractions_weighting", "contractions_features", "graph_opt_main")
    irreps_in = e3nn.Irreps([(mul, i) for mul, i in module.irreps("coupling_irreps")])
    if irreps_in != e3nn.Irreps.spherical_harmonics(irreps_in.lmax):
        raise module.fail(f"couplings of {irreps_in} cannot be converted; of all l once, with natural parity, they can")
    correlation = int(module.number("correlation"))
    lower = module.child("weights")
    lower.ignore("_size")
    params = {}
    for degree in range(1, correlation + 1):
        flag = "weights_max_zeroed" if degree == correlation else f"weights_{degree - 1}_zeroed"
        module.ignore(flag)
        stored = module.array("weights_max") if degree == correlation else lower.array(str(correlation - degree - 1))
        matrix = couplings(module, f"U_matrix_{degree}", irreps_in, degree, ir)
        if len(matrix):
            params[f"w{degree}_{ir}"] = np.einsum("ok,skc->soc", matrix, stored) * len(matrix)
    return params


def readout(module: Module, head: int, heads: int) -> Params:
    """Make the parameters of the readout of one layer, for one of the ``heads``."""
    if module.source == "mace.modules.blocks.LinearReadoutBlock":
        return dense([(column(module, e3nn_linear(module.child("linear")), head, heads), None)])
    of = module.of("mace.modules.blocks.NonLinearReadoutBlock", "mace.modules.blocks.NonLinearBiasReadoutBlock")
    of.ignore("hidden_irreps")
    if int(module.attribute("num_heads", 1)) not in (1, heads):
        raise module.fail(f"{module.attribute('num_heads')} heads, where the model has {heads}")
    first, last = (e3nn_linear(module.child(name)) for name in ("linear_1", "linear_2"))
    middle = e3nn_linear(module.child("linear_mid")) if "linear_mid" in module else None
    factor, identity = readout_activation(module.child("non_linearity"))
    width = first.joined(SCALAR).shape[1] // heads
    own = slice(head * width, (head + 1) * width)
    layers: list[tuple[np.ndarray, np.ndarray | None]] = [(first.joined(SCALAR)[:, own], None)]
    if middle is not None:
        layers.append((middle.joined(SCALAR)[own, own] * factor, None if middle.bias is None else middle.bias[own]))
    constant = None if last.bias is None else last.bias[head : head + 1]
    layers.append((last.joined(SCALAR)[own, head : head + 1] * factor, constant))
    if not identity:
        return dense(layers)
    if middle is not None:
        raise module.fail("a readout with constants and without activation cannot be converted")
    return dense([(layers[0][0] @ layers[1][0], None)])


def column(module: Module, maps: LinearMaps, head: int, heads: int) -> np.ndarray:
    """Select the linear map from invariants to the energy of one head, [channels, 1].

    Raises:
        ValueError: the map does not give one energy for each head.
    """
    matrix = maps.joined(SCALAR)
    if matrix.shape[1] != heads or list(maps.weights) != [SCALAR] or maps.bias is not None:
        raise module.fail(f"a readout that does not give one energy for each of {heads} heads")
    return matrix[:, head : head + 1]


def readout_activation(module: Module) -> tuple[float, bool]:
    """Read the activation of a readout.

    Returns:
        Ratio of the activation to equipot's, and whether there is no activation.

    Raises:
        ValueError: the activation is not SiLU.
    """
    module.of("e3nn.nn._activation.Activation").ignore("irreps_in", "irreps_out")
    found = list(module.child("acts"))
    if not found:
        return 1.0, True
    name, scale = e3nn_activation(found[0])
    if len(found) > 1 or name != SILU:
        raise module.fail(f"the activation {name} cannot be converted; silu or none can")
    return scale / SILU_SCALE, False


def dense(layers: list[tuple[np.ndarray, np.ndarray | None]]) -> Params:
    """Make the parameters of ``nn.radial.MLP``, or with any bias of ``nn.readout.BiasedMLP``, from (matrix, bias) of layers."""
    params = {f"w{k}": w * np.sqrt(w.shape[0]) for k, (w, _) in enumerate(layers)}
    if any(b is not None for _, b in layers):
        params |= {f"b{k}": np.zeros(w.shape[1]) if b is None else b for k, (w, b) in enumerate(layers)}
    return params
