"""MACE checkpoints against what mace-torch says of them; files and figures are of benchmarks/parity/mace_models.py."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import e3nn_jax as e3nn
import jax
import numpy as np
import pytest

import equipot
from equipot.convert import CLASSES, convert, mace_torch, torch_file
from equipot.convert.mace_products import Couplings
from equipot.convert.torch_module import Module
from equipot.data.batch import pad
from equipot.kernels.polynomial import monomials, multiplicity
from equipot.nn.contraction import basis
from equipot.potential import initial
from equipot.structure import Structure

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem for path in DATA.glob("*.model"))
FOLDER = Path(os.environ.get("EQUIPOT_MACE_MODELS", DATA))
GOLDEN = sorted(FOLDER.glob("mace-*.json" if FOLDER == DATA else "*.json"))
CASES = [(path.stem, head) for path in GOLDEN for head in json.loads(path.read_text())["heads"]]


def read(name, folder=DATA):
    return torch_file.load(folder / f"{name}.model", CLASSES)


def structures(golden):
    make = lambda s: Structure(np.array(s["numbers"]), np.array(s["positions"]), np.array(s["cell"]), tuple(s["pbc"]))
    return [make(s) for s in golden["structures"].values()]


def predict(potential, systems):
    return equipot.evaluate(potential, pad(systems, potential.cutoff, dtype=np.float64), ("energy", "forces", "stress"))


@pytest.mark.parametrize("name, head", CASES, ids=lambda x: x or "only")
def test_energies_forces_and_stresses_are_those_of_mace_torch(name, head, double_precision):
    golden = json.loads((FOLDER / f"{name}.json").read_text())
    model = read(name, FOLDER)
    potential = mace_torch.build(model, head or None)
    assert {leaf.dtype for leaf in jax.tree.leaves(potential.variables)} == {np.dtype(np.float64)}
    systems = structures(golden)
    out = predict(potential.astype("float64"), systems)
    # Couplings in single precision were rounded by 6e-8 of themselves at most, and mace-torch computes with the rounded ones.
    single = model.state["_buffers"]["r_max"].dtype == np.float32
    slack = 6e-8 * np.abs(out.forces).max() if single else 0.0
    start, compared = 0, 0
    for k, (system, answer) in enumerate(zip(systems, golden["heads"][head].values(), strict=True)):
        own = slice(start, start := start + len(system))
        assert abs(out.energy[k] - answer["energy"]) / len(system) < 1e-8 + slack
        if "forces" in answer:
            assert np.abs(out.forces[own] - answer["forces"]).max() < 1e-7 + slack
            compared += np.abs(answer["forces"]).max() > 0.1
        if "stress" in answer:
            assert np.abs(out.stress[k] - answer["stress"]).max() < 1e-9 + slack
    # Agreement of what is nearly zero says nothing.
    assert compared >= 2 or "forces" not in answer


def test_the_files_are_random_and_small():
    assert len(NAMES) >= 6
    for name in NAMES:
        assert (DATA / f"{name}.model").stat().st_size < 150_000
        assert set(json.loads((DATA / f"{name}.json").read_text())["made_with"]) >= {"torch", "mace-torch", "e3nn", "seed"}


def test_a_converted_potential_is_saved_and_read_like_any_other(tmp_path, double_precision):
    potential = mace_torch.build(read("mace-l2"))
    equipot.save(potential, tmp_path / "a.eqp")
    again = equipot.load(tmp_path / "a.eqp")
    assert again.term == potential.term and again.metadata == potential.metadata
    assert all(map(np.array_equal, jax.tree.leaves(again.variables), jax.tree.leaves(potential.variables)))
    assert dict(again.metadata.extra)["architecture"] == "ScaleShiftMACE" and again.elements == (6, 8)


def test_the_variables_are_those_that_the_term_makes_itself(double_precision):
    """Nothing is missing and nothing is left over."""
    for name in NAMES:
        potential = mace_torch.build(read(name), "a" if name == "mace-density" else None)
        graph = pad([Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, 1.1]]))], potential.cutoff)
        own = jax.eval_shape(partial(initial, potential.term), jax.random.key(0), graph)
        shapes = lambda tree: jax.tree.map(lambda x: np.shape(x), tree)
        assert shapes(dict(own)) == shapes(potential.variables)


def tensors(record, path="", seen=None):
    """Every trainable tensor in a tree of modules, by path."""
    for name, value in record.state["_parameters"].items():
        yield f"{path}{name}", record.state["_parameters"], name, value
    for name, child in record.state["_modules"].items():
        if isinstance(getattr(child, "state", None), dict) and "_parameters" in child.state:
            yield from tensors(child, f"{path}{name}.")


@pytest.mark.parametrize("name", ["mace-density", "mace-nonlinear"])
def test_every_stored_number_counts(name):
    """A parameter that was changed in the file changes what comes out: none is overlooked."""
    model = read(name)
    head = "b" if name == "mace-density" else None
    leaves = lambda: [np.array(x) for x in jax.tree.leaves(mace_torch.build(model, head).variables)]
    before, count = leaves(), 0
    for path, table, key, value in list(tensors(model)):
        if value is not None and np.any(value):
            table[key] = value * 1.5
            assert not all(map(np.array_equal, before, leaves())), path
            table[key], count = value, count + 1
    assert count > 25


def at(record, path):
    for name in filter(None, path.split(".")):
        record = record.state["_modules"][name]
    return record


def rename(path, source):
    def change(model):
        record = at(model, path)
        record.__class__ = type(source.rpartition(".")[2], (torch_file.Record,), {"source": source})

    return change


def attribute(path, name, value):
    return lambda model: at(model, path).state.__setitem__(name, value)


def damage(path, name, place, value):
    def change(model):
        buffers = at(model, path).state["_buffers"]
        buffers[name] = np.array(buffers[name])
        buffers[name][place] = value

    return change


def buffer(path, name, value):
    return lambda model: at(model, path).state["_buffers"].__setitem__(name, value)


CONTRACTION = "products.0.symmetric_contractions.contractions.0"
CHANGES = {
    "unknown model": (
        rename("", "mace.modules.models.PolarMACE"),
        r"model: a mace\.modules\.models\.PolarMACE cannot be converted; what can is ScaleShiftMACE, MACE",
    ),
    "unknown interaction": (
        rename("interactions.1", "mace.modules.blocks.NewInteractionBlock"),
        r"model\.interactions\.1: a mace\.modules\.blocks\.NewInteractionBlock cannot be converted; what can is RealAgnostic",
    ),
    "unknown attribute": (attribute("interactions.0", "conv_fusion", True), r"interactions\.0\.conv_fusion \(1 such in all\)"),
    "unknown parameter": (buffer("readouts.0", "offset", np.ones(3)), r"model\.readouts\.0\.offset \(1 such in all\)"),
    "a hook": (attribute("products.0", "_forward_hooks", {0: "hook"}), r"products\.0\._forward_hooks"),
    "charge embedding": (
        lambda model: model.state["_modules"].__setitem__("joint_embedding", at(model, "node_embedding")),
        "joint_embedding: energies that depend on total charge, spin or other inputs",
    ),
    "no parity": (attribute("", "use_so3", True), "use_so3 = True cannot be converted; False can"),
    "a kernel": (
        lambda model: attribute("interactions.0", "cueq_config", at(model, "readouts.0"))(model),
        "cueq_config is enabled; save the model without it",
    ),
    "a jump at the cutoff": (attribute("radial_embedding", "apply_cutoff", True), "its energy jumps when an atom crosses"),
    "a damaged coupling": (
        damage(CONTRACTION, "U_matrix_2", (0, 1, 0), 0.3),
        "U_matrix_2 deviates by .* from all that is equivariant",
    ),
    "another cutoff": (buffer("radial_embedding.cutoff_fn", "r_max", np.array(3.0)), "or an r_max other than 4.0 Å"),
    "a missing tensor": (
        lambda model: at(model, "interactions.0.linear_up").state["_parameters"].pop("weight"),
        r"linear_up \(Linear\): has no tensor weight",
    ),
    "a missing module": (lambda model: model.state["_modules"].pop("products"), "has no submodule products"),
    "weights of another shape": (
        lambda model: at(model, "interactions.0.linear_up").state["_parameters"].__setitem__("weight", np.ones(4)),
        "weights that do not fit its irreps",
    ),
    "another layout": (
        attribute("interactions.1.equivariant_nonlin", "_layout_is_ir_mul", True),
        "_layout_is_ir_mul = True cannot be converted",
    ),
    "an activation": (
        attribute("interactions.1.equivariant_nonlin", "_act_gate", "torch.tanh"),
        "silu for scalars and sigmoid for gates can",
    ),
}  # fmt: skip
"""What is done to a good model, and what is said of it then."""


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_converted_is_refused_by_name(name):
    model = read("mace-nonlinear")
    change, complaint = CHANGES[name]
    change(model)
    with pytest.raises(ValueError, match=complaint):
        mace_torch.build(model)


def test_the_head_is_chosen_by_name():
    model = read("mace-density")
    with pytest.raises(ValueError, match="the model has no head 'c'; choose from a, b"):
        mace_torch.build(model, "c")
    told = convert(DATA / "mace-density.model", "b").metadata
    assert dict(told.extra)["head"] == "b" and dict(told.extra)["program"] == "MACE"
    stored = at(model, "atomic_energies_fn").state["_buffers"]["atomic_energies"]
    for k, head in enumerate("ab"):
        assert [energy for _, energy in mace_torch.build(model, head).metadata.atomic_energies] == stored[k].tolist()


def test_without_a_choice_a_potential_has_all_heads():
    model = read("mace-density")
    with pytest.raises(ValueError, match="b and a are not the same model; .*; choose one of the heads a, b"):
        # Their scales differ, and with them the repulsion, which is inside.
        mace_torch.build(model)
    buffers = at(model, "scale_shift").state["_buffers"]
    buffers["scale"] = np.full_like(buffers["scale"], buffers["scale"][0])
    both = mace_torch.build(model)
    assert both.heads == ("a", "b")
    for head in "ab":
        picked, single = both.head(head), mace_torch.build(model, head)
        assert picked.term == single.term and picked.metadata.atomic_energies == single.metadata.atomic_energies
        assert all(map(np.array_equal, jax.tree.leaves(picked.variables), jax.tree.leaves(single.variables)))
    parts = [both.head(head).variables["params"]["readout1"]["w0"] for head in "ab"]
    assert not np.array_equal(*parts)


def test_what_is_no_mace_model_is_recognised():
    model = read("mace-mace")
    assert mace_torch.recognise(model)
    assert not mace_torch.recognise(model.state) and not mace_torch.recognise(at(model, "node_embedding.linear"))
    with pytest.raises(ValueError, match="model: not a torch module"):
        mace_torch.build({"state_dict": {}})


def test_couplings_are_written_in_our_basis_exactly():
    """The matrix of one of our own bases, mixed and permuted among its inputs, is that mixture."""
    irreps, ir = e3nn.Irreps("0e+1o"), e3nn.Irrep("1o")
    ours = basis(irreps, 2, ir)
    rng = np.random.default_rng(0)
    mixture, skew = rng.normal(size=(ours.shape[1], 3)), rng.normal(size=(ir.dim, 4, 4, 3))
    symmetric = np.zeros((4, 4, *ours.shape[1:]))
    for row, (p, q) in zip(ours, monomials(4, 2), strict=True):
        symmetric[p, q] = symmetric[q, p] = row / multiplicity((p, q))
    stored = np.einsum("qpkd,ks->dqps", symmetric, mixture) + skew - skew.swapaxes(1, 2)
    model = read("mace-mace")
    at(model, CONTRACTION).state["_buffers"]["U_matrix_2"] = stored
    found = Couplings()(Module(at(model, CONTRACTION)), "U_matrix_2", irreps, 2, ir)
    assert np.abs(found - mixture).max() < 1e-12
