"""Conversion of training checkpoints (``.ckpt``) of NequIP (torch, 0.7 and newer).

Settings and tensors are plain data in these files. If a checkpoint holds an exponential moving average (EMA) of the weights,
the average is converted, with which NequIP itself predicts.
"""

from __future__ import annotations

import re
from typing import Any

import e3nn_jax as e3nn
import numpy as np

from equipot.convert import nequip_model
from equipot.convert.nequip_model import Model
from equipot.potential import Potential

STEM = "model.sole_model.model.func."
"""Prefix of the names of the tensors of a checkpoint's only model."""
MODULES = ("NequIPLightningModule", "EMALightningModule", "ConFIGLightningModule", "EMAConFIGLightningModule")
"""Training modules of NequIP whose weights for inference can be found."""
PACKAGE = "write `nequip-package build CHECKPOINT NAME.nequip.zip` where nequip is installed and convert that"
"""Remedy in error messages."""
PRESETS: dict[str, dict[str, Any]] = {
    "S": {"num_layers": 2, "l_max": 1, "num_features": [128, 64]},
    "M": {"num_layers": 4, "l_max": 2, "num_features": [128, 64, 32]},
    "L": {"num_layers": 6, "l_max": 3, "num_features": [128, 64, 32, 32]},
    "XL": {"num_layers": 6, "l_max": 4, "num_features": [320, 96, 64, 32, 32]},
}
"""Settings of the presets of ``PresetNequIPGNNModel``."""
SIMPLE = {"num_layers": 4, "l_max": 1, "parity": True, "num_features": 32}
"""Defaults of ``NequIPGNNModel``."""
ACTIVATIONS = {"e": "silu", "o": "tanh"}
"""Activations of even and odd scalars."""
EXPECTED: dict[str, tuple[Any, ...]] = {
    "per_edge_type_cutoff": (None,),
    "categorical_graph_field_embed": (None,),
    "convnet_resnet": (False,),
    "convnet_nonlinearity_type": ("gate",),
    "convnet_nonlinearity_scalars": (ACTIVATIONS,),
    "convnet_nonlinearity_gates": (ACTIVATIONS,),
}
"""Settings that change the functional form, with the values that can be converted."""
READ = {
    "r_max", "type_names", "irreps_edge_sh", "feature_irreps_hidden", "polynomial_cutoff_p", "avg_num_neighbors",
    "pair_potential", "bessel_trainable", "per_type_energy_scales_trainable", "per_type_energy_shifts_trainable",
}  # fmt: skip
"""Settings that the conversion reads."""
IMPLIED = {
    "_target_", "seed", "model_dtype", "compile_mode", "do_derivatives", "radial_mlp_depth", "radial_mlp_width",
    "type_embed_num_features", "num_bessels", "per_type_energy_scales", "per_type_energy_shifts", "convnet_sc",
    "learnable_shift", "readout_mlp_hidden_layers_depth", "readout_mlp_hidden_layers_width", "readout_mlp_nonlinearity",
}  # fmt: skip
"""Settings that follow from the tensors, or do not change the energy."""
TRAINED = re.compile(r"(embed_module|linear_[12]|sc|mlp\.\d+)\.weight$")
"""Tensors that are always trained."""
FASTER = ("enable_OpenEquivariance", "enable_CuEquivariance")
"""Modifiers of a model that change only the speed."""


def recognise(content: Any) -> bool:
    """Return whether the content of a torch file is a checkpoint of NequIP, or the tensors of a checkpoint."""
    if not isinstance(content, dict):
        return False
    tensors = content.get("state_dict", content)
    return isinstance(tensors, dict) and any(re.search(r"(^|\.)layer0_convnet\.", str(name)) for name in tensors)


def build(content: dict[str, Any], head: str | None = None) -> Potential:
    """Convert a checkpoint to a potential in double precision.

    Raises:
        ValueError: the checkpoint cannot be converted, or ``head`` is not None.
    """
    if head is not None:
        raise ValueError(f"head {head!r}: NequIP has only one level of theory; leave the head out")
    if "state_dict" not in content or "model" not in content.get("hyper_parameters", {}):
        raise ValueError(
            "tensors of NequIP without the settings of their model (hyper_parameters); give the whole .ckpt that nequip-train "
            "0.7 or newer wrote, or a package (.nequip.zip); files of older versions must be trained anew"
        )
    settings = content["hyper_parameters"]
    version, module = settings["info_dict"]["versions"]["nequip"], settings["info_dict"]["training_module"]["_target_"]
    if module not in [f"nequip.train.{name}" for name in MODULES]:
        raise ValueError(f"weights that {module} keeps for inference are not known here; {PACKAGE}")
    check_types(settings["info_dict"].get("data"))
    config, trained = flatten(settings["model"])
    config = full_settings(config, is_before(version, 16))
    tensors = inference_weights(content["state_dict"], trained)
    if others := [n for n in tensors if not n.startswith(STEM) and re.match(r"model\.", n) and np.size(tensors[n])]:
        raise ValueError(f"a checkpoint with more than one model ({others[0]}, ...) cannot be converted; {PACKAGE}")
    tensors = {name.removeprefix(STEM): value for name, value in tensors.items() if name.startswith(STEM)}
    return nequip_model.build(read_model(config, old_repulsion=is_before(version, 17)), tensors)


def precision(content: dict[str, Any]) -> str:
    """Return the precision of the weights, such as ``float32``."""
    return str(np.asarray(content["state_dict"][f"{STEM}type_embed.embed_module.weight"]).dtype)


def is_before(version: Any, minor: int) -> bool:
    """Return whether a version of NequIP is older than 0.``minor``.

    Raises:
        ValueError: ``version`` is not a version.
    """
    found = re.match(r"(\d+)\.(\d+)\.", str(version))
    if found is None:
        raise ValueError(f"{version!r} is no version of nequip")
    return tuple(map(int, found.groups())) < (0, minor)


def check_types(data: Any) -> None:
    """Check that the settings of the data map each element to the type with its name.

    Raises:
        ValueError: an element is mapped to a type with another name.
    """
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        check_types(value)
    mapped = data.get("chemical_species_to_atom_type_map") if isinstance(data, dict) else None
    if isinstance(mapped, dict) and (wrong := [f"{s} to {name}" for s, name in mapped.items() if s != name]):
        raise ValueError(f"chemical_species_to_atom_type_map maps {wrong[0]}; only types that are elements can be converted")


def flatten(config: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return the settings of the unmodified model, and which of ``bessel_weights``, ``scales`` and ``shifts`` are trained.

    Raises:
        ValueError: the settings are in another file, or the model has modifiers that cannot be converted.
    """
    target = config["_target_"]
    if target in ("nequip.model.ModelFromCheckpoint", "nequip.model.ModelFromPackage"):
        raise ValueError(f"the settings of the model are not in this checkpoint but in that which it began with; {PACKAGE}")
    if target == "nequip.model.modify":
        if strange := [each["modifier"] for each in config["modifiers"] if each["modifier"] not in FASTER]:
            raise ValueError(f"the model is changed by {strange[0]}; {PACKAGE}")
        return flatten(config["model"])
    flags = {"bessel_weights": "bessel_trainable"} | {k: f"per_type_energy_{k}_trainable" for k in ("scales", "shifts")}
    return config, {name for name, flag in flags.items() if config.get(flag, False)}


def full_settings(config: dict[str, Any], old: bool) -> dict[str, Any]:
    """Return the settings of the ``FullNequIPGNNModel`` that equals the model of another builder.

    Args:
        config: Settings of any builder of NequIP.
        old: Whether NequIP was older than 0.16.

    Raises:
        ValueError: the builder is unknown, or its settings contradict each other.
    """
    name = config["_target_"].removeprefix("nequip.model.")
    if name == "PresetNequIPGNNModel":
        chosen = PRESETS.get(config["preset"].upper())
        if chosen is None:
            raise ValueError(f"preset {config['preset']!r} is not known here; {PACKAGE}")
        rest = {key: value for key, value in config.items() if key != "preset"}
        return full_settings({"parity": False, **chosen, **rest, "_target_": "nequip.model.NequIPGNNModel"}, old)
    if name in ("FullNequIPGNNModel", "FullNequIPGNNEnergyModel"):
        return config
    if name not in ("NequIPGNNModel", "NequIPGNNEnergyModel"):
        raise ValueError(f"{config['_target_']} cannot be converted; nequip.model.NequIPGNNModel can")
    given = {**SIMPLE, **config}
    l_max, parity, features = given["l_max"], given["parity"], given["num_features"]
    features = [features] * (l_max + 1) if isinstance(features, int) else features
    degrees = range(l_max + 1)
    if len(features) != len(degrees):
        raise ValueError(f"num_features {features} are not one for each of l = 0..{l_max}")
    if old:
        # Without parity everything counted as even, and with it all even irreps came before the odd ones.
        hidden = [(features[l], (l, p)) for p in ((1, -1) if parity else (1,)) for l in degrees]
        harmonics = [(1, (l, (-1 if parity else 1) ** l)) for l in degrees]
    else:
        hidden = [(features[l], (l, p)) for l in degrees for p in ((1, -1) if parity else ((-1) ** l,))]
        harmonics = [(1, (l, (-1) ** l)) for l in degrees]
    layers = [str(e3nn.Irreps(hidden))] * (given["num_layers"] - 1)
    return {
        **{key: value for key, value in config.items() if key not in SIMPLE},
        "irreps_edge_sh": str(e3nn.Irreps(harmonics)),
        "feature_irreps_hidden": [*layers, f"{features[0]}x0e"],
    }


def read_model(config: dict[str, Any], old_repulsion: bool) -> Model:
    """Read the properties of a model from its full settings.

    Args:
        config: Settings of ``FullNequIPGNNModel``.
        old_repulsion: Whether NequIP was older than 0.17, when a pair potential had the envelope of the model.

    Raises:
        ValueError: a setting is unknown, or has a value that equipot's NequIP lacks.
    """
    for key, known in EXPECTED.items():
        if config.get(key, known[0]) not in known:
            raise ValueError(f"NequIP's {key}: {config[key]!r} cannot be converted; known: {', '.join(map(repr, known))}")
    if unknown := sorted(set(config) - READ - IMPLIED - set(EXPECTED)):
        raise ValueError(f"NequIP's {unknown[0]}: {config[unknown[0]]!r} is not known here")
    harmonics, p = config["irreps_edge_sh"], float(config.get("polynomial_cutoff_p", 6))
    if isinstance(harmonics, int):
        harmonics = e3nn.Irreps.spherical_harmonics(harmonics)
    return Model(
        elements(config["type_names"]),
        float(config["r_max"]),
        e3nn.Irreps(str(harmonics)),
        tuple(e3nn.Irreps(str(irreps)) for irreps in config["feature_irreps_hidden"]),
        p,
        neighbors(config.get("avg_num_neighbors"), config["type_names"]),
        repulsion(config.get("pair_potential"), p if old_repulsion else 6.0),
    )


def elements(names: list[str]) -> tuple[int, ...]:
    """Return the atomic numbers of types that are named by element symbols.

    Raises:
        ValueError: a type is not named by an element symbol.
    """
    from ase.data import atomic_numbers

    if wrong := [name for name in names if not atomic_numbers.get(name)]:
        raise ValueError(f"the type {wrong[0]!r} among type_names is no element; only models whose types are can be converted")
    return tuple(atomic_numbers[name] for name in names)


def neighbors(given: dict[str, float] | float | None, names: list[str]) -> tuple[float, ...]:
    """Return the mean number of neighbours of each type; 1 where the setting is None."""
    if isinstance(given, dict):
        return tuple(float(given[name]) for name in names)
    return (1.0 if given is None else float(given),) * len(names)


def repulsion(config: dict[str, Any] | None, default: float) -> float:
    """Return the exponent p of the envelope of a ZBL pair potential, ``default`` where the settings do not name p.

    Raises:
        ValueError: the pair potential is not ZBL, or a setting is unknown.
    """
    if config is None:
        return default
    if config.get("_target_") != "nequip.nn.pair_potential.ZBL":
        raise ValueError(f"the pair potential {config.get('_target_')} cannot be converted; nequip.nn.pair_potential.ZBL can")
    if unknown := sorted(set(config) - {"_target_", "units", "chemical_species", "polynomial_cutoff_p"}):
        raise ValueError(f"ZBL's {unknown[0]}: {config[unknown[0]]!r} is not known here")
    return float(config.get("polynomial_cutoff_p", default))


def inference_weights(tensors: dict[str, Any], trained: set[str]) -> dict[str, Any]:
    """Return the tensors with which NequIP predicts: averages (EMA) in place of trained tensors, if the file has averages.

    Args:
        tensors: All tensors of the checkpoint.
        trained: Names of tensors that the settings declare as trained, besides ``TRAINED``.

    Raises:
        ValueError: the averages do not fit the parameters of the model.
    """
    average = {name: value for name, value in tensors.items() if name.startswith("ema.ema_weight_")}
    if not average:
        return dict(tensors)
    if not tensors["ema._extra_state"]["is_holding_ema_weights"]:
        raise ValueError("the averaged weights were swapped with the last ones when this was written; take another checkpoint")
    # Averages are numbered in the order of the model's parameters.
    names = [
        name
        for name, value in tensors.items()
        if name.startswith("model.") and np.size(value) and (TRAINED.search(name) or name.rpartition(".")[2] in trained)
    ]
    values = [average.get(f"ema.ema_weight_{k}", ()) for k in range(len(average))]
    if [np.shape(tensors[name]) for name in names] != [np.shape(value) for value in values]:
        raise ValueError(f"{len(values)} averaged weights (EMA) do not fit the {len(names)} parameters of the model; {PACKAGE}")
    return {**tensors, **dict(zip(names, values, strict=True))}
