"""Models that nequip trained and packaged, made by ``benchmarks/parity/nequip_models.py``, against nequip's own values."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import equipot
from equipot.convert import convert, nequip, nequip_package, torch_file
from equipot.convert.certificate import certify, read_references
from equipot.finetune.elements import extend
from equipot.models.nequip import BothParities, NaturalParity, PerSpecies
from equipot.nn.normalize import MeanNeighbors, SenderNeighbors
from equipot.nn.radial import PolynomialEnvelope

DATA = Path(__file__).parent / "data"
FOLDER = Path(os.environ.get("EQUIPOT_NEQUIP_MODELS", DATA))
NAMES = sorted(path.stem.removeprefix("nequip-") for path in FOLDER.glob("nequip-*.json"))
STEM = nequip.STEM


def checkpoint(name, folder=DATA):
    (found,) = (path for path in folder.glob(f"nequip-{name}.*") if path.suffix != ".json")
    return found


def references(name, folder=DATA):
    return read_references(folder / f"nequip-{name}.json")


@pytest.fixture
def content():
    return torch_file.load(checkpoint("trainable"))


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_nequip(name):
    found = certify(convert(checkpoint(name, FOLDER)), references(name, FOLDER))
    # Rounding: energies are up to 30 eV/atom, forces up to 30 eV/Å.
    assert found.energy < 1e-12 and found.forces < 1e-11 and found.stress < 1e-12
    assert found.structures == 5


def test_the_references_have_forces_and_stresses():
    """Without, the comparison would say little."""
    assert len(NAMES) >= 4
    for name in NAMES:
        for record in references(name, FOLDER)["structures"]:
            alone = len(record["numbers"]) == 1
            assert alone or np.abs(record["forces"]).max() > 0.01
            assert record["stress"] is None or np.abs(record["stress"]).max() > 1e-4


def test_architecture_and_origin():
    parity, natural, trainable = (convert(checkpoint(name)) for name in ("parity", "natural", "trainable"))
    assert parity.term.parity == BothParities() and parity.term.layers == 6 and parity.term.repulsion is not None
    assert natural.term.parity == NaturalParity() and natural.term.channels == (4, 3, 2, 2) and natural.term.embedding == 5
    assert natural.term.radial.mlp == (5, 5, 5) and natural.term.self_connection == PerSpecies()
    assert natural.term.normalization == SenderNeighbors(0.5) and parity.term.normalization == MeanNeighbors(0.5)
    assert natural.variables["constants"]["avg_num_neighbors"][-1] == 12.8
    assert trainable.term.radial.envelope == PolynomialEnvelope(4) and trainable.term.repulsion.envelope == PolynomialEnvelope(
        3
    )
    assert trainable.term.radial.basis.trainable and trainable.term.radial.mlp == ()
    assert natural.metadata.dtype == "float32" and parity.metadata.dtype == "float64"
    assert natural.elements == (1, 6, 8, 11, 12, 14, 17, 29) and dict(natural.metadata.atomic_energies)[14] == -5.0
    facts = dict(convert(checkpoint("package")).metadata.extra)
    assert facts["program"] == "NequIP" and facts["source"] == "nequip-package.nequip.zip"


def test_what_nequip_averaged_is_taken(content):
    plain = {name: value for name, value in content["state_dict"].items() if not name.startswith("ema.")}
    last = nequip.build({**content, "state_dict": plain})
    # What the last step left agrees with the references less well than rounding allows.
    assert certify(last, references("trainable")).energy > 1e-9


def test_odd_scalars_reach_the_energy():
    """Or the agreement would say nothing of them."""
    made = convert(checkpoint("parity"))
    leaves = flatten_dict(made.variables, sep="/")
    leaves["params/layer2/down/w0o"] = -leaves["params/layer2/down/w0o"]
    assert certify(made.replace(variables=unflatten_dict(leaves, sep="/")), references("parity")).forces > 1e-6


def test_survives_its_file_and_takes_new_elements(tmp_path, double_precision):
    made = convert(checkpoint("natural"))
    equipot.save(made, tmp_path / "made.eqp")
    again = equipot.load(tmp_path / "made.eqp", "float64")
    for potential in (again, extend(again, {26: 29})):
        assert certify(potential, references("natural")).forces < 1e-11
    assert extend(again, {26: 29}).variables["constants"]["avg_num_neighbors"].tolist()[-2:] == [12.8, 12.8]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_target_": "allegro.model.AllegroModel"}, "allegro.model.AllegroModel cannot be converted"),
        ({"_target_": "nequip.model.ModelFromCheckpoint"}, "not in this checkpoint but in that which it began with; write"),
        (
            {"_target_": "nequip.model.modify", "modifiers": [{"modifier": "modify_PerTypeScaleShift"}]},
            "changed by modify_PerType",
        ),
        ({"_target_": "nequip.model.PresetNequIPGNNModel", "preset": "XXL"}, "preset 'XXL' is not known"),
        ({"categorical_graph_field_embed": [{"field": "charge"}]}, "categorical_graph_field_embed: .*charge"),
        ({"convnet_resnet": True}, "convnet_resnet: True cannot be converted; known: False"),
        ({"convnet_nonlinearity_scalars": {"e": "ssp", "o": "tanh"}}, "convnet_nonlinearity_scalars"),
        ({"per_edge_type_cutoff": {"H": 2.0}}, "per_edge_type_cutoff"),
        ({"polynomial_cutoff_p": 4.5}, "polynomial_cutoff_p 4.5 cannot be converted; a whole number can"),
        ({"type_names": ["H", "C", "O", "my", "Mg", "Si", "Cl", "Cu"]}, "type 'my' among type_names is no element"),
        ({"type_names": ["C", "H", "O", "Na", "Mg", "Si", "Cl", "Cu"]}, "ZBL's chemical_species have the atomic numbers"),
        ({"type_names": ["H"]}, "embedding of types has the shape"),
        ({"pair_potential": {"_target_": "nequip.nn.pair_potential.LennardJones"}}, "LennardJones cannot be converted"),
        ({"pair_potential": {"_target_": "nequip.nn.pair_potential.ZBL", "scale": 2}}, "ZBL's scale: 2 is not known"),
        ({"charge_field": "q"}, "charge_field: 'q' is not known here"),
        ({"r_max": 5.0}, "made for a cutoff of 4 Å, the settings say 5 Å"),
        ({"num_features": [3]}, "num_features .3. are not one for each"),
        ({"l_max": 2}, "weights"),
        ({"num_layers": 3}, "needs .* weights, but the file has"),
        ({"num_layers": 1}, "needs .* weights, but the file has"),
        ({"bessel_trainable": False}, "12 averaged weights .EMA. do not fit the 11 parameters"),
    ],
)
def test_what_cannot_be_converted_is_refused(content, changes, message):
    content["hyper_parameters"]["model"].update(changes)
    with pytest.raises(ValueError, match=message):
        nequip.build(content)


def test_kernels_that_only_save_time_are_no_obstacle(content):
    inner = content["hyper_parameters"]["model"]
    wrapped = {"_target_": "nequip.model.modify", "modifiers": [{"modifier": "enable_OpenEquivariance"}], "model": inner}
    content["hyper_parameters"]["model"] = wrapped
    assert nequip.build(content).term == convert(checkpoint("trainable")).term


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("extra.weight", np.ones(3), "do not have: extra.weight"),
        ("layer0_convnet.conv.linear_1.bias", np.ones(3), "do not have: layer0_convnet.conv.linear_1.bias"),
        ("edge_norm._rmax_recip", np.full(64, 0.25), "per_edge_type_cutoff"),
        ("pair_potential._qqr2exesquare", np.array(332.06371 / 2), "ZBL with 332.064 in front is not in eV"),
        ("per_atom_energy_readout.mlp_module.mlp.2.weight", np.ones((3, 1)), "readout with hidden layers"),
        ("layer1_convnet.conv.edge_mlp.mlp.0.weight", np.ones((5, 8)), "edge_mlp has 8 outputs, but the irreps need"),
        ("layer1_convnet.conv.sc.weight", np.ones(5), "needs .* weights, but the file has 5"),
    ],
)
def test_tensors_that_do_not_belong_are_noticed(content, name, value, message):
    tensors = {key: item for key, item in content["state_dict"].items() if not key.startswith("ema.")}
    with pytest.raises(ValueError, match=message):
        nequip.build({**content, "state_dict": {**tensors, f"{STEM}{name}": value}})


def test_every_weight_is_needed(content):
    tensors = {key: item for key, item in content["state_dict"].items() if not key.startswith("ema.")}
    weights = [key for key, item in tensors.items() if key.startswith(STEM) and np.size(item) and "_w3j_" not in key]
    for name in (key for key in weights if not key.endswith(("output_mask", "sc.weight", "_qqr2exesquare"))):
        with pytest.raises(ValueError):
            nequip.build({**content, "state_dict": {key: item for key, item in tensors.items() if key != name}})


def test_averaged_weights_in_another_order_are_noticed(content):
    tensors = dict(content["state_dict"])
    tensors["ema.ema_weight_0"], tensors["ema.ema_weight_2"] = tensors["ema.ema_weight_2"], tensors["ema.ema_weight_0"]
    with pytest.raises(ValueError, match="do not fit"):
        nequip.build({**content, "state_dict": tensors})
    tensors = copy.deepcopy(content["state_dict"])
    tensors["ema._extra_state"]["is_holding_ema_weights"] = False
    with pytest.raises(ValueError, match="swapped"):
        nequip.build({**content, "state_dict": tensors})


def test_the_rest_of_a_checkpoint_decides_too(content):
    info = content["hyper_parameters"]["info_dict"]
    mapper = {"transforms": [{"chemical_species_to_atom_type_map": {"H": "H", "Fe": "Cu"}}]}
    cases = [
        ({"data": mapper}, "maps Fe to Cu; only types that are elements"),
        ({"training_module": {"_target_": "nequip.train.ScheduleFreeLightningModule"}}, "ScheduleFree.* not known here; write"),
        ({"versions": {"nequip": None}}, "None is no version of nequip"),
    ]
    for changes, message in cases:
        content["hyper_parameters"]["info_dict"] = {**info, **changes}
        with pytest.raises(ValueError, match=message):
            nequip.build(content)


def test_tensors_without_settings_are_refused(content):
    for bare in (
        {"state_dict": content["state_dict"]},
        {k.removeprefix("model."): v for k, v in content["state_dict"].items()},
    ):
        assert nequip.recognise(bare)
        with pytest.raises(ValueError, match=r"without the settings of their model \(hyper_parameters\); give the whole .ckpt"):
            nequip.build(bare)


def test_a_head_and_several_models_are_refused(content):
    for name in ("parity", "package"):
        with pytest.raises(ValueError, match="only one level of theory"):
            convert(checkpoint(name), "PBE")
    content["state_dict"]["model.other.model.func.layer0_convnet.conv.linear_1.weight"] = np.ones(3)
    with pytest.raises(ValueError, match="do not fit|more than one model"):
        nequip.build(content)


def test_before_version_016_parities_were_ordered_and_meant_otherwise():
    config = {"_target_": "nequip.model.NequIPGNNModel", "num_layers": 2, "l_max": 1, "num_features": 2}
    assert nequip.full_settings(config, old=True)["feature_irreps_hidden"] == ["2x0e+2x1e+2x0o+2x1o", "2x0e"]
    assert nequip.full_settings(config, old=False)["feature_irreps_hidden"] == ["2x0e+2x0o+2x1e+2x1o", "2x0e"]
    without = nequip.full_settings({**config, "parity": False}, old=True)
    assert without["feature_irreps_hidden"] == ["2x0e+2x1e", "2x0e"] and without["irreps_edge_sh"] == "1x0e+1x1e"
    assert nequip.is_before("0.15.0", 16) and not nequip.is_before("0.16.0", 16)


def repack(source, target, change):
    """A package with other bytes in its pickle."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("eager_model.pkl") else data)
    return target


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"nequip.nn.misc\nApplyFactor", b"nequip.nn.misc\nApplyVector", "nequip.nn.misc.ApplyVector cannot be converted"),
        (b"torch.nn.functional\nsilu", b"torch.nn.functional\ngelu", "silu times 1.679.* can"),
        (b"nequip.nn.misc\nApplyFactor", b"subprocess\nPopen", "refused, and nothing of it was run: it holds subprocess.Popen"),
        (b"component", b"condiment", "normalization = 'condiment' cannot be converted; 'component' can"),
        (b"sole_model", b"some_model", "a package with the models some_model"),
        (b"total_energy_sum", b"total_energy_max", "a model with the stages .*total_energy_max"),
    ],
)
def test_packages_that_are_something_else_are_refused(tmp_path, old, new, message):
    swap = lambda data: data.replace(old, new)
    with pytest.raises(ValueError, match=message):
        convert(repack(checkpoint("package"), tmp_path / "a.nequip.zip", swap))


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    path = repack(checkpoint("package"), tmp_path / "a.nequip.zip", lambda _: pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="refused, and nothing of it was run: it holds posix.mkdir"):
        convert(path)
    assert not (tmp_path / "trap").exists()


def test_code_in_a_package_is_left_alone(tmp_path):
    path = tmp_path / "a.nequip.zip"
    shutil.copy(checkpoint("package"), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("made/nequip/__init__.py", f"open({str(tmp_path / 'trap')!r}, 'w')")
    assert nequip_package.recognise(path) and convert(path).term == convert(checkpoint("package")).term
    assert not (tmp_path / "trap").exists()


def test_compiled_models_are_refused(tmp_path):
    path = tmp_path / "model.nequip.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/aotinductor/model/a.so", b"x")
    with pytest.raises(ValueError, match="a compiled program .*; give the checkpoint that it was made from"):
        convert(path)
