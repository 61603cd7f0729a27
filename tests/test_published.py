"""Published potentials by name, with a small checkpoint in the place of the published ones and no network."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ase.build import bulk

import equipot
from equipot import published, wheels
from equipot.cli import main
from equipot.convert.certificate import certify, read_references
from equipot.published import Entry
from equipot.quantities import LABELLED
from equipot.wheels import LibraryError, Wheel
from equipot.workflows import named_uncertainty

DATA = Path(__file__).parent / "convert" / "data"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and one name, ``tiny``; gives the folder of models and the wheel that carries it."""
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path / "cache"))
    source = DATA / "sevennet-parity.pth"
    carrier = tmp_path / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(carrier, "w") as archive:
        archive.write(source, "carrier/model.pth")
        archive.writestr("carrier/__init__.py", "raise SystemExit('this must never run')")
    entry = Entry(
        file="carrier/model.pth", sha256=sha256(source), level_of_theory="none", citation="Nobody (2026)", licence="MIT",
        elements="1, 6, 8, 11, 14, 17", megabytes=1, wheel=Wheel("carrier", "1.0", sha256(carrier), 1),
    )  # fmt: skip
    monkeypatch.setattr(published, "MODELS", {"tiny": entry})
    references = tmp_path / "references"
    references.mkdir()
    shutil.copy(DATA / "sevennet-parity.json", references / "tiny.json")
    monkeypatch.setattr(published, "REFERENCES", references)
    return tmp_path / "cache" / "models", carrier


def no_network(*args, **options):
    return subprocess.CompletedProcess(args, 1, "", "WARNING: something\nERROR: no matching distribution\n")


def bring(carrier):
    """In the place of pip."""

    def run(command, **options):
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command and command[-1] == "carrier==1.0"
        shutil.copy(carrier, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_is_fetched_converted_and_certified_once(cache, monkeypatch, capsys):
    folder, carrier = cache
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=bring(carrier)))
    first = published.load("tiny")
    told = capsys.readouterr().err
    assert "fetching carrier 1.0 (1 MB) for tiny" in told and "deviates by" in told
    assert first.metadata.citation == "Nobody (2026)" and first.dtype == np.float32
    assert "sevenn" in dict(first.metadata.extra)["deviation"]
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=no_network))
    assert published.load("TINY").metadata == first.metadata
    assert capsys.readouterr().err == "" and published.is_cached("tiny")


def test_the_checkpoint_in_the_cache_is_enough(cache, monkeypatch):
    folder, carrier = cache
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=bring(carrier)))
    made = published.fetch("tiny", say=lambda text: None)
    made.unlink()
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=no_network))
    assert published.fetch("tiny", say=lambda text: None) == made


def test_a_damaged_file_in_the_cache_is_made_again(cache, monkeypatch, capsys, tmp_path):
    folder, carrier = cache
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=bring(carrier)))
    made = published.fetch("tiny", say=lambda text: None)
    whole = published.load("tiny")
    made.write_bytes(made.read_bytes()[:1000])
    assert main(["convert", "tiny", "-o", str(tmp_path / "x.eqp")]) == 0
    assert "cut short" in capsys.readouterr().err
    assert published.load(tmp_path / "x.eqp").metadata == published.load("tiny").metadata == whole.metadata


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "delimiter|double quotes"),
        ("[]", "no attribute"),
        ("{}", "it lacks provenance, structures"),
        ('{"provenance": {}, "structures": []}', "it lacks dtype"),
        ('{"provenance": {"dtype": "float64"}, "structures": []}', "it lacks structures"),
        ('{"provenance": {"dtype": "float64"}, "structures": [{"name": "x"}]}', "it lacks cell, energy, forces, numbers"),
    ],
)
def test_references_that_are_none_are_told(tmp_path, text, fault, capsys):
    (tmp_path / "r.json").write_text(text)
    files = ["-o", str(tmp_path / "x.eqp"), "--reference", str(tmp_path / "r.json")]
    assert main(["convert", str(DATA / "sevennet-parity.pth"), *files]) == 2
    assert re.search(f"r.json: not reference values .*{fault}", capsys.readouterr().err)


def test_a_wheel_put_there_by_hand_is_enough(cache, monkeypatch):
    folder, carrier = cache
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=no_network))
    folder.mkdir(parents=True)
    shutil.copy(carrier, folder)
    assert published.fetch("tiny", say=lambda text: None).is_file()


def test_without_network_and_cache_it_says_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=no_network))
    with pytest.raises(LibraryError) as caught:
        published.load("tiny")
    message = str(caught.value)
    assert "ERROR: no matching distribution" in message
    assert "carrier-1.0-py3-none-any.whl" in message and str(cache[0]) in message


def test_what_was_not_published_is_refused(cache, monkeypatch):
    folder, carrier = cache
    carrier.write_bytes(carrier.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=bring(carrier)))
    with pytest.raises(LibraryError, match="SHA-256"):
        published.load("tiny")
    assert not list(folder.rglob("*.pth")) and not list(folder.rglob("*.eqp"))


def test_a_deviation_is_never_kept(cache, monkeypatch):
    folder, carrier = cache
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=bring(carrier)))
    path = published.REFERENCES / "tiny.json"
    references = read_references(path)
    references["structures"][0]["forces"][0][0] += 1e-3
    path.write_text(json.dumps(references))
    with pytest.raises(LibraryError, match="deviates from its source by .*1.0e-03 eV/Å"):
        published.load("tiny")
    assert not list(folder.rglob("*.eqp"))


def test_what_no_package_carries_is_told(cache, monkeypatch):
    entry = dataclasses.replace(published.MODELS["tiny"], wheel=None, url="https://example.org")
    monkeypatch.setitem(published.MODELS, "tiny", entry)
    with pytest.raises(LibraryError, match="get carrier/model.pth from https://example.org"):
        published.load("tiny")


def test_a_misspelt_name(cache, capsys, tmp_path):
    with pytest.raises(FileNotFoundError, match="did you mean tiny?"):
        published.load("tinny")
    with pytest.raises(FileNotFoundError, match="other.eqp: no such file"):
        published.load("other.eqp")
    assert main(["convert", "tinny", "-o", str(tmp_path / "x.eqp")]) == 2
    assert "did you mean tiny?" in capsys.readouterr().err


def test_the_other_command_is_named(cache, capsys, tmp_path):
    checkpoint = str(DATA / "sevennet-parity.pth")
    with pytest.raises(ValueError, match=f"first: equipot convert {checkpoint} -o sevennet-parity.eqp"):
        published.load(checkpoint)
    assert main(["convert", str(tmp_path / "y.eqp"), "-o", str(tmp_path / "x.eqp")]) == 2
    assert "is a potential of equipot already" in capsys.readouterr().err


def test_commands_take_names(cache, monkeypatch, capsys, tmp_path):
    folder, carrier = cache
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=bring(carrier)))
    assert main(["models"]) == 0 and "1 MB to fetch" in capsys.readouterr().out
    assert main(["convert", "tiny", "-o", str(tmp_path / "x.eqp")]) == 0
    assert (tmp_path / "x.eqp").read_bytes() == next(folder.rglob("tiny.eqp")).read_bytes()
    assert main(["models"]) == 0 and "in the cache" in capsys.readouterr().out


def test_a_name_gets_an_estimate_of_its_uncertainty_once(cache, monkeypatch, capsys):
    """Energies and forces stay what they were, bit for bit; what does not belong to the potential is not used."""
    folder, carrier = cache
    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=bring(carrier)))
    # Silicon alone takes seconds.
    whole = named_uncertainty.prototypes
    monkeypatch.setattr(named_uncertainty, "prototypes", lambda elements: whole((14,)))
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.05, seed=0)
    crushed = silicon.copy()
    crushed.set_cell(0.6 * silicon.cell, scale_atoms=True)
    before = equipot.evaluate(published.load("tiny"), silicon)
    assert main(["models"]) == 0 and "equipot models tiny --uncertainty" in capsys.readouterr().out
    assert main(["models", "tiny", "--uncertainty"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"rests on \d+ prototype crystals and \d+ molecules of its 6 elements, not on its training set", told)
    assert main(["models", "Tiny"]) == 0 and "novelty, by prototype structures" in capsys.readouterr().out
    potential = published.load("tiny")
    assert capsys.readouterr().err == "" and [row.name for row in potential.deviations] == ["novelty"]
    after = equipot.evaluate(potential, silicon, want=("energy", "forces", "stress", "novelty"))
    for row in LABELLED:
        np.testing.assert_array_equal(equipot.evaluate(potential, silicon)[row], before[row])
        np.testing.assert_allclose(after[row], before[row], rtol=1e-5, atol=1e-5)
    far = equipot.evaluate(potential, [crushed, bulk("NaCl", "rocksalt", a=5.6)], want=("novelty",)).others["novelty"]
    assert after.others["novelty"].max() < 1 < far[:8].min() and np.isinf(far[8:]).all()
    path = published.uncertainty_path("tiny")
    kept = path.read_bytes()
    path.write_bytes(kept[:1000])
    assert published.load("tiny").posterior is None and "without an estimate of its uncertainty" in capsys.readouterr().err
    other = potential.replace(variables=jax.tree.map(lambda x: 2 * x, potential.variables))
    equipot.save(equipot.uncertainty.fit(other, [silicon] * 4), path)
    assert published.load("tiny").posterior is None and "of other variables" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--uncertainty"], "equipot models NAME --uncertainty"),
        (["tinny"], "did you mean tiny?"),
        (["file.eqp", "--uncertainty"], "equipot uncertainty FILE --prototypes"),
    ],
)
def test_what_has_no_estimate_is_told_in_one_line(cache, arguments, message, capsys):
    assert main(["models", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_the_published_models_are_told_completely():
    for name, entry in published.MODELS.items():
        assert entry.level_of_theory and entry.citation and entry.licence == "MIT" and len(entry.sha256) == 64, name
        assert len(entry.atomic_numbers) == 89
        references = read_references(Path(published.__file__).parent / "convert" / "references" / f"{name}.json")
        assert references["provenance"]["sha256"] == entry.sha256 and references["provenance"].get("head") == entry.head
        assert len(references["structures"]) == 6


@pytest.mark.slow
def test_the_real_thing(tmp_path, monkeypatch):
    """From nothing to an energy that sevenn gives too."""
    monkeypatch.setenv("EQUIPOT_CACHE", str(tmp_path))
    try:
        potential = published.load("sevennet-0")
    except LibraryError as error:
        if "could not fetch" not in str(error):
            raise
        pytest.skip(f"no network: {error}")
    references = read_references(published.REFERENCES / "sevennet-0.json")
    assert certify(potential, references, "float32").passed and len(potential.elements) == 89
    assert dict(potential.metadata.extra)["source"].startswith("sevenn 0.13.0: sevenn/pretrained_potentials/SevenNet_0__11Jul")
