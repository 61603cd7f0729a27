"""The command and the function that take any checkpoint."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest

import equipot
from equipot.cli import main
from equipot.convert import check_shapes, convert

DATA = Path(__file__).parent / "data"


def run(capsys, *argv):
    code = main([str(part) for part in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_converts_and_certifies(capsys, tmp_path):
    out = tmp_path / "made.eqp"
    code, said, _ = run(
        capsys, "convert", DATA / "sevennet-parity.pth", "-o", out, "--reference", DATA / "sevennet-parity.json"
    )  # fmt: skip
    assert code == 0 and "SevenNet, NequIP" in said and "on 4 structures of 6 elements" in said
    assert dict(equipot.load(out).metadata.extra)["program"] == "SevenNet"


def test_says_when_there_is_nothing_to_compare_with(capsys, tmp_path):
    code, said, _ = run(capsys, "convert", DATA / "sevennet-parity.pth", "-o", tmp_path / "made.eqp")
    assert code == 0 and "not compared with its source" in said


def test_a_deviating_result_is_not_written(capsys, tmp_path):
    out = tmp_path / "made.eqp"
    code, _, error = run(
        capsys, "convert", DATA / "sevennet-parity.pth", "-o", out, "--reference", DATA / "sevennet-rotations.json"
    )  # fmt: skip
    assert code == 1 and "deviates from its source" in error and not out.exists()


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def malicious(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model_state_dict": Evil()}, protocol=4))
        archive.writestr("archive/version", "3\n")


def truncated(path):
    path.write_bytes((DATA / "sevennet-parity.pth").read_bytes()[:20000])


def foreign(path):
    path.write_text("a letter to somebody\n")


def other_torch(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 1, "weights": []}, protocol=2))


def nequix_cut(path):
    config = {
        "atomic_numbers": [1, 8], "cutoff": 4.0, "hidden_irreps": "4x0e + 4x1o", "lmax": 1, "n_layers": 2,
        "radial_basis_size": 4, "radial_mlp_size": 4, "radial_mlp_layers": 1, "radial_polynomial_p": 6.0,
        "index_weights": False, "layer_norm": True, "shift": 0.0, "scale": 1.0, "avg_n_neighbors": 4.0,
    }  # fmt: skip
    path.write_bytes(json.dumps(config).encode() + b"\n\x93NUMPY")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (malicious, "builtins.print, which is neither a number"),
        (truncated, "cut short"),
        (foreign, "not a checkpoint of torch"),
        (other_torch, "a torch file with epoch, weights"),
        (nequix_cut, "cut short or damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_checkpoint_ends_in_one_line(make, message, capsys, tmp_path):
    make(tmp_path / "bad")
    code, said, error = run(capsys, "convert", tmp_path / "bad", "-o", tmp_path / "made.eqp")
    assert code == 2 and message in error and error.count("\n") == 1 and str(tmp_path / "bad") in error
    assert "this ran" not in said + error and not (tmp_path / "made.eqp").exists()


def test_other_errors(capsys, tmp_path):
    assert "no such file" in run(capsys, "convert", tmp_path / "none.pth", "-o", tmp_path / "made.eqp")[2]
    assert "ends in .eqp" in run(capsys, "convert", DATA / "sevennet-parity.pth", "-o", tmp_path / "made.pth")[2]
    code, _, error = run(capsys, "convert", DATA / "sevennet-modalities.pth", "-o", tmp_path / "made.eqp")
    assert code == 2 and "choose a head from HSE, PBE, R2SCAN" in error


def test_wrong_shapes_are_named():
    made = convert(DATA / "sevennet-parity.pth")
    with pytest.raises(ValueError, match="params/embedding/w has the shape .* is needed"):
        check_shapes(made.replace(term=made.term.clone(channels=4)))
