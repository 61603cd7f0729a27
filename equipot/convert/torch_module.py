"""Modules of torch and e3nn in a file, read so that nothing which could change a number is overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import numpy as np

from equipot.convert.torch_file import Record

MACHINERY = {"training", "__codegen__", "_is_full_backward_hook", "_non_persistent_buffers_set"}
"""What torch and e3nn store with every module, and which changes no number."""
Irreps = list[tuple[int, e3nn.Irrep]]


class Module:
    """A ``torch.nn.Module`` in a file. What is asked for is remembered; ``unread`` tells what was not."""

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
        # Hooks run code of their own, but tables of none of them stand in every file.
        idle = lambda name, value: "_hooks" in name and not value
        plain = {name: value for name, value in state.items() if name not in own and name not in MACHINERY}
        self._attributes = {name: value for name, value in plain.items() if not idle(name, value)}
        self._children: dict[str, Module] = {}
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays or name in self._modules or name in self._attributes

    def fail(self, message: str) -> ValueError:
        """The error that says so of this module."""
        return ValueError(f"{self.path} ({self.kind}): {message}")

    def of(self, *sources: str) -> Module:
        """This module, whose class must be one of those named."""
        if self.source not in sources:
            names = ", ".join(source.rpartition(".")[2] for source in sources)
            raise ValueError(f"{self.path}: a {self.source} cannot be converted; what can is {names}")
        return self

    def array(self, name: str) -> np.ndarray:
        """A parameter or buffer in double precision."""
        if name not in self._arrays:
            raise self.fail(f"has no tensor {name}")
        self._read.add(name)
        value = np.asarray(self._arrays[name])
        if value.dtype.kind not in "fiub":
            raise self.fail(f"{name} is not an array of numbers")
        return value.astype(np.float64)

    def stored(self) -> dict[str, Any]:
        """Its parameters and buffers as a state dict has them; they do not count as read."""
        return {name: value for name, value in self._arrays.items() if name not in self._passing}

    def number(self, name: str) -> float:
        """A tensor or attribute with one number."""
        value = self.array(name) if name in self._arrays else np.asarray(self.attribute(name))
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise self.fail(f"{name} is not one number")
        return float(value.reshape(()))

    def attribute(self, name: str, *default: Any) -> Any:
        """A plain attribute; without a default it must be there."""
        if name not in self._attributes:
            if not default:
                raise self.fail(f"has no attribute {name}")
            return default[0]
        self._read.add(name)
        return self._attributes[name]

    def expect(self, name: str, *allowed: Any) -> None:
        """An attribute that may be missing, or must have one of these values."""
        if self.attribute(name, allowed[0]) not in allowed:
            names = " or ".join(map(repr, allowed))
            raise self.fail(f"{name} = {self.attribute(name)!r} cannot be converted; {names} can")

    def irreps(self, name: str) -> Irreps:
        """An attribute that holds e3nn's Irreps."""
        try:
            (entries,) = self.attribute(name).args
            pairs = [entry.args[0] for entry in entries]
            return [(int(mul), e3nn.Irrep(*ir.args[0])) for mul, ir in pairs]
        except (AttributeError, TypeError, ValueError, AssertionError):
            raise self.fail(f"{name} are no irreps") from None

    def child(self, name: str) -> Module:
        """A submodule."""
        if name not in self._modules:
            raise self.fail(f"has no submodule {name}")
        if name not in self._children:
            self._read.add(name)
            self._children[name] = Module(self._modules[name], f"{self.path}.{name}")
        return self._children[name]

    def __iter__(self) -> Iterator[Module]:
        """Submodules in order."""
        return (self.child(name) for name in self._modules)

    def ignore(self, *names: str) -> None:
        """Marks as read what does not change the energy."""
        self._read.update(names)

    def drop(self) -> None:
        """Marks this module as read, with everything in it."""
        self._read.update((*self._arrays, *self._modules, *self._attributes))
        self._children = {}

    def single(self, name: str) -> bool:
        """Whether a tensor is stored in single precision or less."""
        return self._arrays[name].dtype.itemsize < 8

    def unread(self) -> list[str]:
        """Paths of what nobody has asked for, here and below."""
        names = [n for n in (*self._arrays, *self._modules, *self._attributes) if n not in self._read]
        own = [f"{self.path}.{name}" for name in names]
        return own + [path for child in self._children.values() for path in child.unread()]


class LinearMaps(NamedTuple):
    """An equivariant linear map: y[ir] = sum over the inputs k of this irrep of x[k] @ weights[ir][k], plus a bias."""

    weights: dict[e3nn.Irrep, dict[int, np.ndarray]]
    """By output irrep and index of the input, [mul_in, mul_out]."""
    bias: np.ndarray | None
    """Of the invariants."""

    def joined(self, ir: e3nn.Irrep) -> np.ndarray:
        """Inputs of one irrep one after the other, [sum of mul_in, mul_out]."""
        return np.concatenate(list(self.weights[ir].values()))


def e3nn_linear(module: Module) -> LinearMaps:
    """The maps of an ``e3nn.o3.Linear``, with the factors that e3nn applies to its weights."""
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
    """The maps of a product of features with one-hot species, [species, mul_in, mul_out] for every irrep."""
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
    name: str
    """Such as ``torch.nn.functional.silu``."""
    scale: float
    """Factor of its output."""


def e3nn_activation(module: Module) -> ActivationScale:
    """An ``e3nn.math.normalize2mom``: the function and its factor."""
    module.of("e3nn.math._normalize_activation.normalize2mom")
    function = module.attribute("f")
    scale = 1.0 if module.attribute("_is_id", False) else module.number("cst")
    module.ignore("cst")
    return ActivationScale(getattr(function, "source", repr(function)), scale)


def e3nn_mlp(module: Module, scale_of_silu: float) -> list[np.ndarray]:
    """Matrices of an ``e3nn.nn.FullyConnectedNet``, scaled for a SiLU of that factor between them."""
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
        # What follows an activation takes its factor: the variance is that of the output.
        out[-1] /= np.sqrt(variance_out)
        factor = scale * np.sqrt(variance_out) / scale_of_silu
    if factor != 1.0:
        raise module.fail("an activation after the last layer cannot be converted")
    return out
