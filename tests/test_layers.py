"""The shape of the package: imports point one way, importing changes nothing, and what is imported is declared."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "equipot"

LAYERS = [
    {
        "units",
        "files",
        "arrays",
        "yamltext",
        "config",
        "allocator",
        "console",
        "interrupts",
        "electrons",
        "memory",
        "figures",
        "pages",
        "isolated_atoms",
        "hessian_labels",
        "quantities",
        "artifact",
        "earlier",
        "electric_field",
        "wheels",
    },
    {"kernels"},
    {"structure", "extent", "graph", "observables", "metadata", "rigid_motions"},
    {"neighbors"},
    {"data", "nn"},
    {
        "term",
        "posterior",
        "geometry",
        "feature_slopes",
        "dipole_derivatives",
        "potential",
        "second_derivatives",
        "eqp",
        "evaluation",
    },
    {"models", "physics"},
    {"convert", "published", "testing"},
    {"uncertainty"},
    {"training"},
    {"finetune"},
    {"md", "workflows", "interfaces"},
    {"active"},
    {"cli", "__main__"},
    {"site"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# A method of the public surface that is made by a layer above, when it is called.
FACADES = {("potential.py", "equipot.interfaces.ase")}
# The front door offers names of the layers below it, lazily; nothing inside comes in through it but for the version.
FRONT = "__init__"

NAMES = {"yaml": "pyyaml", "e3nn_jax": "e3nn-jax", "jax_md": "jax-md", "orbax": "flax"}
"""Imports whose distribution is called otherwise."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The layer's member that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MEMBERS = {unit(path) for path in modules()} - {FRONT}


def imports(path: Path, annotations: bool = True) -> list[tuple[int, str]]:
    """Every import of a file, lazy ones included, as (line, dotted name), with or without those under TYPE_CHECKING."""
    found, tree = [], ast.parse(path.read_text(encoding="utf-8"))
    checked = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = set() if annotations else {inner for node in checked for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            # `from equipot import config` names a module, not an attribute.
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    if unit(path) == FRONT:
        return
    assert unit(path) in LEVEL, f"{path.name} has no layer; name it in LAYERS"
    for line, name in imports(path):
        parts = name.split(".")
        facade = (str(path.relative_to(PACKAGE)), ".".join(parts[:3])) in FACADES
        if parts[0] == "equipot" and len(parts) > 1 and parts[1] in MEMBERS and not facade:
            assert LEVEL[parts[1]] <= LEVEL[unit(path)], f"{path.relative_to(ROOT)}:{line} imports {name} from a layer above"


def test_every_layer_member_is_found_by_the_rule():
    assert MEMBERS <= set(LEVEL)


def test_third_party_imports_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    known = {re.split(r"[\[<>=! ]", name)[0].lower() for name in declared}
    for path in modules():
        for line, name in imports(path):
            top = name.split(".")[0]
            if top != "equipot" and top not in sys.stdlib_module_names and top != "__future__":
                assert NAMES.get(top, top).lower() in known, f"{path.relative_to(ROOT)}:{line}: {top} is not in pyproject.toml"


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_light_and_changes_nothing():
    code = """
import os, sys, warnings, json
import jax
before = dict(os.environ), list(warnings.filters)
import equipot
loaded = [name for name in ("jax_md", "ase", "matplotlib", "tqdm", "h5py", "flax", "e3nn_jax") if name in sys.modules]
print(json.dumps([loaded, before == (dict(os.environ), list(warnings.filters)), jax.config.jax_enable_x64,
                  jax.config.jax_default_matmul_precision, jax.config.jax_compilation_cache_dir]))
"""
    loaded, same, x64, precision, cache = json.loads(run_python(code))
    assert loaded == [] and same
    assert (x64, precision, cache) == (False, None, None)


def test_help_needs_no_jax():
    code = """
import sys
from equipot.cli import main
for argv in (["--help"], ["train", "--help"], ["train"]):
    main(argv)
print(sorted({"jax", "numpy", "flax", "yaml"} & set(sys.modules)), file=sys.stdout)
"""
    assert run_python(code).splitlines()[-1] == "[]"


def test_the_classes_of_a_training_config_need_no_training_loop():
    code = """
import sys
from equipot.training import TrainConfig, FineTune
print([name for name in sys.modules if name in ("equipot.training.loop", "equipot.training.run", "equipot.finetune")])
"""
    assert run_python(code).splitlines()[-1] == "[]"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "benchmarks"], ids=lambda folder: folder.name)
def test_no_two_files_import_each_other(folder):
    """Neither directly nor through others, inside a layer too; but for facades and names that only annotations need."""
    names = {module_of(path): path for path in folder.rglob("*.py")}
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        found = {(full if full in names else full.rpartition(".")[0]) for _, full in imports(path, annotations=False)}
        facades = {target for source, target in FACADES if path == PACKAGE / source}
        edges[name] = {other for other in found - {name, folder.name} - facades if other in names}
    left = dict(edges)
    while True:
        # What imports nothing that is left is in no circle.
        free = [name for name, others in left.items() if not others & left.keys()]
        if not free:
            break
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, f"circles among {sorted(left)}"
