"""Modules of torch and e3nn in a file, with a record of the values that were read, so that none is overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot.convert.torch_file import Record

MACHINERY = {"training", "__codegen__", "_is_full_backward_hook", "_non_persistent_buffers_set"}
"""Attributes that torch and e3nn store with every module and that change no number."""
Irreps = list[tuple[int, e3nn.Irrep]]
"""Multiplicities and irreps in the order of a file, equal irreps not merged."""


class Module:
    """A ``torch.nn.Module`` in a file, which records the values that are read; ``unread`` lists all others."""

    def __init__(self, record: Any, path: str = "model") -> None:
        state = getattr(record, "state", None)
        if not isinstance(record, Record) or not isinstance(state, dict) or not isinstance(state.get("_modules"), dict):
            raise ValueError(f"{path}: not a torch module")
        self.source, self.path = record.source, path
        self.kind = record.source.rpartition(".")[2]
        tensors = {**state.get("_parameters", {}), **state.get("_buffers", {})}
        self._arrays = {name: value for name, value in tensors.items() if value is not None}
        self._passing = state.get("_non_persistent_buffers_set", set())
        self._modules = {name: value for name, value in state["_modules"].items() if value is not None}
        own = ("_parameters", "_buffers", "_modules")
        # Hooks run code, but every file has tables of hooks, which are usually empty.
        idle = lambda name, value: "_hooks" in name and not value
        plain = {name: value for name, value in state.items() if name not in own and name not in MACHINERY}
        self._attributes = {name: value for name, value in plain.items() if not idle(name, value)}
        self._children: dict[str, Module] = {}
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays or name in self._modules or name in self._attributes

    def fail(self, message: str) -> ValueError:
        """Return an error with a message about this module."""
        return ValueError(f"{self.path} ({self.kind}): {message}")

    def of(self, *sources: str) -> Module:
        """Check the class of this module, and return this module.

        Raises:
            ValueError: the class is not one of ``sources``.
        """
        if self.source not in sources:
            names = ", ".join(source.rpartition(".")[2] for source in sources)
            raise ValueError(f"{self.path}: a {self.source} cannot be converted; what can is {names}")
        return self

    def array(self, name: str) -> np.ndarray:
        """Read a parameter or buffer in double precision.

        Raises:
            ValueError: there is no such tensor, or the tensor does not hold numbers.
        """
        if name not in self._arrays:
            raise self.fail(f"has no tensor {name}")
        self._read.add(name)
        value = np.asarray(self._arrays[name])
        if value.dtype.kind not in "fiub":
            raise self.fail(f"{name} is not an array of numbers")
        return value.astype(np.float64)

    def stored(self) -> dict[str, Any]:
        """Return the parameters and buffers of a state dict, without recording them as read."""
        return {name: value for name, value in self._arrays.items() if name not in self._passing}

    def number(self, name: str) -> float:
        """Read a tensor or attribute that is one number.

        Raises:
            ValueError: there is no such value, or the value is not one number.
        """
        value = self.array(name) if name in self._arrays else np.asarray(self.attribute(name))
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise self.fail(f"{name} is not one number")
        return float(value.reshape(()))

    def attribute(self, name: str, *default: Any) -> Any:
        """Read an attribute that is neither tensor nor submodule.

        Raises:
            ValueError: there is no such attribute and no default.
        """
        if name not in self._attributes:
            if not default:
                raise self.fail(f"has no attribute {name}")
            return default[0]
        self._read.add(name)
        return self._attributes[name]

    def expect(self, name: str, *allowed: Any) -> None:
        """Check that an attribute is missing or has one of the ``allowed`` values.

        Raises:
            ValueError: the attribute has another value.
        """
        if self.attribute(name, allowed[0]) not in allowed:
            names = " or ".join(map(repr, allowed))
            raise self.fail(f"{name} = {self.attribute(name)!r} cannot be converted; {names} can")

    def irreps(self, name: str) -> Irreps:
        """Read an attribute that holds Irreps of e3nn.

        Raises:
            ValueError: the attribute does not hold Irreps.
        """
        try:
            (entries,) = self.attribute(name).args
            pairs = [entry.args[0] for entry in entries]
            return [(int(mul), e3nn.Irrep(*ir.args[0])) for mul, ir in pairs]
        except (AttributeError, TypeError, ValueError, AssertionError):
            raise self.fail(f"{name} are no irreps") from None

    def child(self, name: str) -> Module:
        """Return a submodule.

        Raises:
            ValueError: there is no such submodule.
        """
        if name not in self._modules:
            raise self.fail(f"has no submodule {name}")
        if name not in self._children:
            self._read.add(name)
            self._children[name] = Module(self._modules[name], f"{self.path}.{name}")
        return self._children[name]

    def __iter__(self) -> Iterator[Module]:
        """Iterate over the submodules in order."""
        return (self.child(name) for name in self._modules)

    def ignore(self, *names: str) -> None:
        """Record values that do not change the energy as read."""
        self._read.update(names)

    def drop(self) -> None:
        """Record all values of this module and its submodules as read."""
        self._read.update((*self._arrays, *self._modules, *self._attributes))
        self._children = {}

    def single(self, name: str) -> bool:
        """Return whether a tensor is stored in single precision or less."""
        return self._arrays[name].dtype.itemsize < 8

    def unread(self) -> list[str]:
        """List the paths of all values of this module and its submodules that were not read."""
        names = [n for n in (*self._arrays, *self._modules, *self._attributes) if n not in self._read]
        own = [f"{self.path}.{name}" for name in names]
        return own + [path for child in self._children.values() for path in child.unread()]


class LinearMaps(NamedTuple):
    """An equivariant linear map: y[ir] = sum over the inputs k of this irrep of x[k] @ weights[ir][k], plus a bias."""

    weights: dict[e3nn.Irrep, dict[int, np.ndarray]]
    """Matrices [mul_in, mul_out], by output irrep and index of the input."""
    bias: np.ndarray | None
    """Constants added to the invariants, [mul_out]."""

    def joined(self, ir: e3nn.Irrep) -> np.ndarray:
        """Join the matrices of all inputs of one irrep, [sum of mul_in, mul_out]."""
        return np.concatenate(list(self.weights[ir].values()))


def e3nn_linear(module: Module) -> LinearMaps:
    """Read an ``e3nn.o3.Linear``, with the factors that e3nn applies to its weights.

    Raises:
        ValueError: the weights do not fit the irreps, or an output irrep is repeated.
    """
    module.of("e3nn.o3._linear.Linear").ignore("_optimize_einsums", "weight_numel", "bias_numel", "output_mask")
    module.expect("internal_weights", True)
    module.expect("shared_weights", True)
    irreps_in, irreps_out = module.irreps("irreps_in"), module.irreps("irreps_out")
    if len({ir for _, ir in irreps_out}) < len(irreps_out):
        raise module.fail("an output irrep that stands there twice cannot be converted")
    flat, biases = module.array("weight"), module.array("bias") if "bias" in module else np.zeros(0)
    weights: dict[e3nn.Irrep, dict[int, np.ndarray]] = {ir: {} for _, ir in irreps_out}
    bias, start = None, 0
    for instruction in module.attribute("instructions"):
        i_in, i_out, shape, factor = instruction.args
        if i_in == -1:
            bias, biases = biases[: shape[0]] * factor, biases[shape[0] :]
            continue
        size = int(np.prod(shape))
        block = flat[start : start + size]
        if block.size != size or shape != (irreps_in[i_in][0], irreps_out[i_out][0]):
            raise module.fail("weights that do not fit its irreps")
        weights[irreps_out[i_out][1]][i_in] = block.reshape(shape) * factor
        start += size
    if start != flat.size or biases.size:
        raise module.fail("more weights than its irreps need")
    return LinearMaps({ir: blocks for ir, blocks in weights.items() if blocks}, bias)


def e3nn_species_linear(module: Module) -> dict[e3nn.Irrep, np.ndarray]:
    """Read a tensor product of features with one-hot species, as matrices [species, mul_in, mul_out] by irrep.

    Raises:
        ValueError: the module is another tensor product, or the weights do not fit the irreps.
    """
    module.of("e3nn.o3._tensor_product._sub.FullyConnectedTensorProduct")
    module.ignore("_in1_dim", "_in2_dim", "_specialized_code", "_optimize_einsums", "weight_numel", "_profiling_str")
    module.ignore("output_mask")
    module.expect("internal_weights", True)
    module.expect("shared_weights", True)
    irreps_in, species, irreps_out = (module.irreps(name) for name in ("irreps_in1", "irreps_in2", "irreps_out"))
    if len(species) != 1 or species[0][1] != e3nn.Irrep("0e"):
        raise module.fail("its second input is not a species")
    flat, out, start = module.array("weight"), {}, 0
    for instruction in module.attribute("instructions"):
        i_in, _, i_out, mode, has_weight, factor, shape = instruction.args
        ir = irreps_out[i_out][1]
        size = int(np.prod(shape))
        block = flat[start : start + size]
        if mode != "uvw" or not has_weight or ir in out or irreps_in[i_in][1] != ir or block.size != size:
            raise module.fail("an instruction that is not one map for each irrep")
        # Wigner's 3j symbol of l, 0, l is the identity over sqrt(2l + 1).
        out[ir] = block.reshape(shape).transpose(1, 0, 2) * factor / np.sqrt(ir.dim)
        start += size
    if start != flat.size:
        raise module.fail("more weights than its irreps need")
    return out


class ActivationScale(NamedTuple):
    """An activation with a constant factor."""

    name: str
    """Name of the function, such as ``torch.nn.functional.silu``."""
    scale: float
    """Factor of the output."""


def e3nn_activation(module: Module) -> ActivationScale:
    """Read an ``e3nn.math.normalize2mom``, an activation scaled to unit second moment."""
    module.of("e3nn.math._normalize_activation.normalize2mom")
    function = module.attribute("f")
    scale = 1.0 if module.attribute("_is_id", False) else module.number("cst")
    module.ignore("cst")
    return ActivationScale(getattr(function, "source", repr(function)), scale)


def e3nn_mlp(module: Module, scale_of_silu: float) -> list[np.ndarray]:
    """Read the matrices of an ``e3nn.nn.FullyConnectedNet``, scaled for ``scale_of_silu`` x SiLU between layers.

    Raises:
        ValueError: the activation is not SiLU, or follows the last layer.
    """
    module.of("e3nn.nn._fc.FullyConnectedNet").ignore("hs")
    out, factor = [], 1.0
    for layer in module:
        layer.of("e3nn.nn._fc._Layer").ignore("h_out", "_profiling_str")
        variance_in, variance_out = layer.number("var_in"), layer.number("var_out")
        out.append(layer.array("weight") * factor / np.sqrt(layer.number("h_in") * variance_in) * np.sqrt(variance_out))
        if "act" in layer and layer.attribute("act", "module") is None:
            factor = 1.0
            continue
        name, scale = e3nn_activation(layer.child("act"))
        if name != "torch.nn.functional.silu":
            raise layer.fail(f"the activation {name} cannot be converted; silu can")
        # The factor of an activation, and the variance of its output, go into the next matrix.
        out[-1] /= np.sqrt(variance_out)
        factor = scale * np.sqrt(variance_out) / scale_of_silu
    if factor != 1.0:
        raise module.fail("an activation after the last layer cannot be converted")
    return out
