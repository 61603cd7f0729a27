"""Nequix files, made here array by array: what is refused, and that what may follow the model does not matter."""

from __future__ import annotations

import io
import json
import warnings

import jax
import numpy as np
import pytest

from equipot.cli import main
from equipot.convert import nequix

CONFIG = {
    "atomic_numbers": [1, 8], "cutoff": 4.0, "hidden_irreps": "4x0e + 4x1o", "lmax": 1, "n_layers": 2,
    "radial_basis_size": 4, "radial_mlp_size": 4, "radial_mlp_layers": 1, "radial_polynomial_p": 6.0,
    "index_weights": False, "layer_norm": True, "shift": 0.5, "scale": 1.0, "avg_n_neighbors": 4.0,
    "optimizer": "muon", "atom_energies": {"1": -1.0, "8": -2.0},
}  # fmt: skip
HEADER = json.dumps(CONFIG).encode() + b"\n"


def stored(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture(scope="module")
def arrays():
    """Those of ``CONFIG``, in their order."""
    made, rng = [], np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nequix, "read_array", lambda file, shape: made.append(rng.normal(size=shape).astype("f4")) or made[-1])
        nequix.read_variables(nequix.read_term(CONFIG), CONFIG, io.BytesIO())
    return [stored(array) for array in made]


def write(path, parts, **changes):
    path.write_bytes(json.dumps({**CONFIG, **changes}).encode() + b"\n" + b"".join(parts))
    return path


def test_what_may_follow_the_model_changes_nothing(tmp_path, arrays):
    settings = [stored(np.array(leaf)) for leaf in jax.tree.leaves(CONFIG) if not isinstance(leaf, str)]
    plain, *others = (
        nequix.build(write(tmp_path / "a.nqx", [*arrays, *more])).variables for more in ([], [b"\n"], settings)
    )  # fmt: skip
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, plain)
    for more in ([b"xxx"], [arrays[-1]], settings[:-1], [*settings, b"x"], [*settings[:-1], stored(np.array(17.0))]):
        with pytest.raises(ValueError, match="bytes follow the last array of the model"):
            nequix.build(write(tmp_path / "a.nqx", [*arrays, *more]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"add_repulsion": True}, "Nequix's add_repulsion is not known here"),
        ({"\x1b[31mred": 1}, r"Nequix's \x1b[31mred is not known here"),
        ({"cutoff": 0}, "cutoff 0 must be above 0"),
        ({"cutoff": -5.0}, "cutoff -5.0 must be above 0"),
        ({"cutoff": float("nan")}, "cutoff is not a number that is finite"),
        ({"cutoff": True}, "cutoff is not a number that is finite"),
        ({"avg_n_neighbors": 0}, "avg_n_neighbors 0 must be above 0"),
        ({"scale": "1"}, "scale is not a number that is finite"),
        ({"radial_polynomial_p": 1e9}, "radial_polynomial_p is not a number that is finite"),
        ({"radial_polynomial_p": 1e8}, "radial_polynomial_p 100000000.0 is not a whole number from 2 to 100"),
        ({"radial_polynomial_p": 2.5}, "radial_polynomial_p 2.5 is not a whole number from 2 to 100"),
        ({"n_layers": 10**6}, "n_layers 1000000 is not a whole number from 1 to 100"),
        ({"lmax": "3"}, "lmax is not a number"),
        ({"radial_mlp_size": 10**4}, "an array of shape (4, 10000) should follow"),
        ({"index_weights": 0}, "index_weights is neither true nor false"),
        ({"hidden_irreps": ["4x0e"]}, "hidden_irreps are not a text"),
        ({"atomic_numbers": [1.5]}, "atomic_numbers are not a list of whole numbers"),
    ],
)
def test_settings_out_of_range_end_in_one_line(changes, message, tmp_path, capsys, arrays):
    path = write(tmp_path / "a.nqx", arrays, **changes)
    assert_refused(path, message, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 900_000 + b"\n", "not a checkpoint of torch"),
        (b'{"hidden_irreps":' * 50_000 + b"\n", "not a checkpoint of torch"),
        (HEADER + stored(np.zeros(2, "f4")).replace(b"(2,), }" + b" " * 16, b"(1000000000000000,), }  "),
         "an array of shape (2,) should follow, not float32 (1000000000000000,)"),
        (HEADER + stored(np.zeros(2, "f4"))[:-1], "cut short in an array of shape (2,)"),
        (HEADER + stored(np.zeros(2, "f4")).replace(b"(2,), }  ", b"((((((((("), "cut short or damaged"),
    ],
    ids=["deep list", "deep settings", "huge array", "cut array", "damaged header"],
)  # fmt: skip
def test_hostile_files_end_in_one_line(content, message, tmp_path, capsys):
    path = tmp_path / "a.nqx"
    path.write_bytes(content)
    assert_refused(path, message, capsys)


def assert_refused(path, message, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code = main(["convert", str(path), "-o", str(path.with_suffix(".eqp"))])
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1 and error.strip().isprintable()
