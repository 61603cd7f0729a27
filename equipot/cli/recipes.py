"""Packaged configs, and folders of runs."""

from __future__ import annotations

from pathlib import Path

PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
"""Folders of the packaged configs in an installed package and in a checkout."""


def recipes() -> dict[str, Path]:
    """Return the packaged configs by name."""
    place = next((place for place in PLACES if place.is_dir()), None)
    return {} if place is None else {path.stem: path for path in sorted(place.glob("*.yaml"))}


def find_config(config: Path) -> Path:
    """Return the path of a config, given as a path or as the name of a recipe, with or without ``configs/`` and ``.yaml``.

    Raises:
        ValueError: neither a file nor a recipe.
    """
    if config.is_file():
        return config
    found = recipes()
    if config.stem in found and config.parent.name in ("", "configs"):
        return found[config.stem]
    raise ValueError(f"{config}: no such file, and no recipe of this name; there are {', '.join(found)}")


def run_folder(out: Path | None, name: str, resume: bool) -> Path:
    """Return the folder of a run: ``out`` or runs/NAME.

    Raises:
        ValueError: the folder is a file, or holds a run that is not to be resumed.
    """
    out = out or Path("runs") / name
    if out.is_file():
        raise ValueError(f"--out {out} is a file; name a folder")
    if not resume and (out / "config.yaml").exists():
        raise ValueError(f"{out} holds a run already; continue it with --resume, or choose another folder with --out")
    return out
