"""The configs that come with the package, and the folders that runs go to."""

from __future__ import annotations

from pathlib import Path

PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
"""In an installed package, and in a checkout (as an editable install has it)."""


def recipes() -> dict[str, Path]:
    """Packaged configs by name."""
    place = next((place for place in PLACES if place.is_dir()), None)
    return {} if place is None else {path.stem: path for path in sorted(place.glob("*.yaml"))}


def find_config(config: Path) -> Path:
    """The file that the user means: a path, or the name of a packaged recipe, with or without ``configs/`` and ``.yaml``.

    Raises:
        ValueError: there is neither.
    """
    if config.is_file():
        return config
    found = recipes()
    if config.stem in found and config.parent.name in ("", "configs"):
        return found[config.stem]
    raise ValueError(f"{config}: no such file, and no recipe of this name; there are {', '.join(found)}")


def run_folder(out: Path | None, name: str, resume: bool) -> Path:
    """Where a run goes: ``out`` or runs/NAME; an earlier run there is only touched in order to resume it.

    Raises:
        ValueError: it holds a run already.
    """
    out = out or Path("runs") / name
    if out.is_file():
        raise ValueError(f"--out {out} is a file; name a folder")
    if not resume and (out / "config.yaml").exists():
        raise ValueError(f"{out} holds a run already; continue it with --resume, or choose another folder with --out")
    return out
