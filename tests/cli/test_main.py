"""The frame of the command line: help, exit codes, and errors in one line."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from equipot import __version__, cli
from equipot.cli import recipes, runtime
from equipot.cli.parser import ANALYSES, WORKFLOWS


class Exploded(RuntimeError):
    """Stands for a failure that a module of the package declares."""


Exploded.__module__ = "equipot.md.somewhere"


@pytest.fixture
def command(monkeypatch):
    """Makes ``equipot train x.yaml`` raise something."""

    def install(error: BaseException) -> None:
        def run(args):
            raise error

        monkeypatch.setitem(sys.modules, "equipot.cli.train", types.SimpleNamespace(execute=run))

    return install


def one_line(capsys) -> str:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    return lines[0]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("cutoff 0.0 Å\n must be positive"), 2, "cutoff 0.0 Å must be positive"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), 2, "No such file or directory: a; check the path"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            2,
            "No space left on device; the disk is full: free some space, then continue with --resume",
        ),
        (OSError(errno.ENOSPC, "cannot write x; free space"), 2, "cannot write x; free space"),
        (ModuleNotFoundError("No module named 'h5py'", name="h5py"), 2, "this needs the package h5py: pip install h5py"),
        (
            ValueError("the data have errors:\n  a, frame 1: NaN; mend it\n  b: empty; mend it"),
            2,
            "the data have errors: a, frame 1: NaN; mend it (the first of 2; `equipot data FILE` shows all)",
        ),
        (Exploded("T = 1e9 K in step 12"), 1, "T = 1e9 K in step 12"),
        (
            MemoryError(),
            1,
            "out of memory; use smaller batches (--set training.batch_size=1), fewer atoms or a smaller model",
        ),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Exception) else "",
)
def test_errors_are_one_line_with_the_right_code(command, capsys, monkeypatch, error, code, line):
    monkeypatch.delenv("EQUIPOT_DEBUG", raising=False)
    command(error)
    assert cli.main(["train", "x.yaml"]) == code
    assert one_line(capsys) == f"equipot: error: {line}"


def test_a_defect_of_ours_shows_where(command, capsys):
    command(KeyError("x"))
    assert cli.main(["train", "x.yaml"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and err.strip().splitlines()[-1].startswith("equipot: error: this is a defect of equipot")


@pytest.mark.parametrize("way", ["--debug", "EQUIPOT_DEBUG"])
def test_debug_shows_the_traceback(command, capsys, monkeypatch, way):
    command(ValueError("wrong"))
    monkeypatch.delenv("EQUIPOT_DEBUG", raising=False)
    if way != "--debug":
        monkeypatch.setenv(way, "1")
    assert cli.main(["train", "x.yaml", *([way] if way == "--debug" else [])]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and err.strip().endswith("equipot: error: wrong")


def test_interrupt_names_the_command_that_resumes(command, capsys):
    command(KeyboardInterrupt())
    assert cli.main(["train", "my config.yaml", "--out", "o"]) == 130
    expected = "equipot: interrupted; continue with: equipot train 'my config.yaml' --out o --resume"
    assert one_line(capsys) == expected
    assert cli.main(["train", "c.yaml", "--resume"]) == 130
    assert one_line(capsys) == "equipot: interrupted; continue with: equipot train c.yaml --resume"


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["--help"], 0), (["train", "--help"], 0), (["--version"], 0), ([], 2), (["trian"], 2), (["train"], 2)],
)
def test_exit_codes_of_the_parser(capsys, argv, code):
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    assert (captured.out if code == 0 else captured.err).strip()


def test_every_command_has_its_module():
    choices = next(a for a in cli.parser()._actions if getattr(a, "choices", None)).choices
    folder = Path(cli.__file__).parent
    shared = {**dict.fromkeys(WORKFLOWS, "workflow"), **dict.fromkeys(ANALYSES, "analysis")}
    assert set(choices) == shared.keys() | {
        *("train", "evaluate", "doctor", "md", "convert", "compress", "guard", "uncertainty", "models", "data"),
        *("quickstart", "hessian"),
    }
    assert all((folder / f"{shared.get(name, name)}.py").exists() for name in choices)
    assert all((folder.parent / "workflows" / name / "command.py").exists() for name in shared)


def test_a_run_is_not_overwritten(tmp_path):
    assert recipes.run_folder(None, "x", False) == Path("runs/x")
    assert recipes.run_folder(tmp_path, "x", False) == tmp_path
    (tmp_path / "config.yaml").write_text("{}")
    assert recipes.run_folder(tmp_path, "x", True) == tmp_path
    with pytest.raises(ValueError, match="holds a run already; continue it with --resume, or choose another folder with --out"):
        recipes.run_folder(tmp_path, "x", False)
    with pytest.raises(ValueError, match="is a file"):
        recipes.run_folder(tmp_path / "config.yaml", "x", False)


def test_recipes_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.yaml", "configs/quickstart.yaml"):
        assert recipes.find_config(Path(name)).read_text()
    Path("quickstart").mkdir()
    assert recipes.find_config(Path("quickstart")).read_text()
    Path("quickstart").rmdir()
    Path("quickstart").write_text("mine")
    assert recipes.find_config(Path("quickstart")) == Path("quickstart")
    with pytest.raises(ValueError, match="no such file, and no recipe of this name; there are .*quickstart"):
        recipes.find_config(Path("elsewhere/quickstart.yaml"))


def test_the_cache_is_where_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path / "c"))
    assert runtime.cache_folder().is_relative_to(tmp_path / "c")
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    assert runtime.cache_folder() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path / "file"))
    assert runtime.cache_folder() is None


def test_runtime_sets_precision_devices_and_cache(tmp_path):
    code = """
from equipot.cli.runtime import prepare
import equipot.models.mace
prepare("float64", 3)
import jax, jax.numpy as jnp
print(jnp.zeros(()).dtype, len(jax.devices("cpu")), jax.config.jax_compilation_cache_dir)
prepare("float32", 2)
print(jnp.zeros(()).dtype, len(jax.devices("cpu")))
"""
    env = os.environ | {"EQUIPOT_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"float64 3 {tmp_path}") and second == "float32 3"


@pytest.mark.parametrize("off", [False, True])
def test_evaluating_leaves_compiled_functions_and_kernels_in_the_cache(tmp_path, off):
    import jax

    from equipot import eqp
    from equipot.data import bundled
    from equipot.data.batch import pad
    from equipot.metadata import Metadata
    from equipot.models import fresh
    from equipot.models.mace import MACE
    from equipot.nn.radial import Radial

    term = MACE(cutoff=4.0, channels=4, radial=Radial(mlp=(8,)), elements=(1, 6, 8))
    frames, free = bundled.load("ethanol/test")[:2], Metadata(((1, -13.0), (6, -1000.0), (8, -2000.0)))
    eqp.save(fresh(term, pad(frames, 4.0), jax.random.key(0), free), tmp_path / "m.eqp")
    env = os.environ | {"EQUIPOT_CACHE": "off" if off else str(tmp_path / "c"), "XDG_CACHE_HOME": str(tmp_path / "x")}
    # JAX keeps what took a second to compile, which depends on the machine.
    env |= {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "equipot", "evaluate", "m.eqp", "bundled:ethanol/test", "--batch-size", "45"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=300)
    assert done.returncode == 0 and "90 frames" in done.stdout, done.stderr
    # The JSON file is the verdict on machine code.
    kept = {"-cache" if path.name.endswith("-cache") else path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == ({".eqp"} if off else {".eqp", ".o", "-cache", ".json"})


def test_a_termination_request_stops_as_an_interrupt_does(tmp_path):
    code = """
import sys, time, types
def run(args):
    print("running", flush=True)
    time.sleep(60)
sys.modules["equipot.cli.train"] = types.SimpleNamespace(execute=run)
sys.argv = ["equipot", "train", "c.yaml"]
from equipot.cli import entry
entry()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert err.strip() == "equipot: interrupted; continue with: equipot train c.yaml --resume"


def test_help_names_every_recipe(capsys):
    cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in recipes.recipes())


@pytest.mark.parametrize("module", ["equipot", "equipot.cli"])
def test_runs_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"equipot {__version__}\n"), done.stderr


def test_training_takes_a_config_or_a_data_file(tmp_path, monkeypatch):
    from equipot.cli.train import holds_data

    monkeypatch.chdir(tmp_path)
    for name in ("data.xyz", "data.db", "config.yaml", "config.yml", "quickstart", "OUTCAR"):
        Path(name).touch()
    Path("recipe").write_text("data: {train: data.xyz}\n")
    assert holds_data(Path("OUTCAR")) and not holds_data(Path("recipe"))
    assert [holds_data(Path(name)) for name in ("data.xyz", "data.db", "data.xyz@0:10", "bundled:ethanol/train")] == [True] * 4
    others = "config.yaml", "config.yml", "quickstart", "mace-crystals", "missing.xyz"
    assert not any(holds_data(Path(name)) for name in others)


def test_data_file_alone_is_enough_to_train(tmp_path, monkeypatch):
    from equipot.cli import main, train

    found = []
    monkeypatch.setattr(train, "run_training", lambda settings, out, resume: found.append((settings, out)))
    monkeypatch.chdir(tmp_path)
    Path("mine.xyz").touch()
    assert main(["train", "mine.xyz", "--set", "training.max_minutes=20"]) == 0
    ((settings, out),) = found
    assert settings.data.train == "mine.xyz" and settings.training.max_minutes == 20
    assert type(settings.model).__name__ == "FromData"
    assert out == Path("runs/mine")
