"""Labels of the Hessian d^2E/dr dr of a system: the whole matrix, or its products with some directions.

A label is one array in eV/Å^2:

    whole matrix    H[i, a, j, b]                                               (atoms, 3, atoms, 3)
    products        d_k and H d_k for directions d_k, k = 1..K                  (K, 2, atoms, 3)

A column of the matrix is the product with the unit vector of one atom and axis. The second axis, 3 or 2 long, tells the two
forms apart. A file holds a matrix as ``hessian``, products as ``hessian_products`` with ``hessian_directions``, or, where they
are columns, with ``hessian_columns``: numbers 3 i + a of atoms and axes, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

PRODUCTS, DIRECTIONS, COLUMNS = "_products", "_directions", "_columns"
"""Endings of the names of products, of their directions, and of the numbers of columns."""


class Product(NamedTuple):
    """A direction and the product of a Hessian with it."""

    direction: Float[np.ndarray, "atoms 3"]
    """Dimensionless, of the length sqrt(3 atoms)."""
    product: Float[np.ndarray, "atoms 3"]
    """eV/Å^2."""


def is_whole(label: np.ndarray) -> bool:
    """Whether a label is a whole matrix, not products with directions."""
    return label.shape[1] == 3


def of_products(directions: Float[np.ndarray, "k atoms 3"], products: Float[np.ndarray, "k atoms 3"]) -> np.ndarray:
    """Join directions and products of a Hessian with them (eV/Å^2) to a label (K, 2, atoms, 3)."""
    return np.stack([directions, products], axis=1)


def unit_directions(columns: Int[np.ndarray, " k"], atoms: int) -> Float[np.ndarray, "k atoms 3"]:
    """Return the unit vectors of the columns 3 i + a of the Hessian of a number of atoms."""
    return np.eye(3 * atoms)[np.asarray(columns, int)].reshape(-1, atoms, 3)


def checked(value: Any, atoms: int, source: str) -> np.ndarray:
    """Convert a label to an array of double precision, of one of the two shapes; (3 atoms, 3 atoms) becomes a whole matrix.

    Raises:
        ValueError: another shape, or a direction of length zero; the message names ``source``.
    """
    array = np.array(value, np.float64)
    if array.shape == (3 * atoms, 3 * atoms):
        array = array.reshape(atoms, 3, atoms, 3)
    if array.shape == (atoms, 3, atoms, 3):
        return array
    if array.shape[1:] != (2, atoms, 3) or not len(array):
        raise ValueError(
            f"{source}: hessian has shape {array.shape}, but {atoms} atoms need {(atoms, 3, atoms, 3)}, or (K, 2, {atoms}, 3) "
            "for K directions and the products with them"
        )
    if not array[:, 0].any(axis=(1, 2)).all():
        raise ValueError(f"{source}: a direction of the Hessian's products is zero; leave that product out")
    return array


def scaled(label: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the matrix of a label by a factor; directions stay."""
    return label * factor if is_whole(label) else label * np.array([1.0, factor])[:, None, None]


def compared(label: np.ndarray) -> np.ndarray:
    """Return the numbers of a label in which errors are counted, eV/Å^2.

    These are the elements of a whole matrix (atoms, 3, atoms, 3), or the products (K, atoms, 3) with the directions at the
    length sqrt(3 atoms), as training sees them.
    """
    if is_whole(label):
        return label
    lengths = np.linalg.norm(label[:, 0], axis=(1, 2))
    return label[:, 1] * (np.sqrt(3 * label.shape[2]) / lengths)[:, None, None]


def drawn(label: np.ndarray, rng: np.random.Generator) -> Product:
    """Draw a random direction v from those that a label covers, with the product H v.

    v = sqrt(3 n) sum_k c_k d_k / |d_k|, with c uniform on the unit sphere in K dimensions, n the number of atoms; of a whole
    matrix the d_k are the 3 n unit vectors, so that v is uniform on the sphere of radius sqrt(3 n), whatever the axes are. For
    the error D of a matrix, the mean of |D v|^2 / 3n over such directions is the mean of |D d_k|^2 over the directions of unit
    length: for a whole matrix the mean square of the length of a row of D, sum D_ij^2 / 3n, which does not grow with the size
    of a system; the mean square of an element is a 3n-th of it.
    """
    if is_whole(label):
        n = len(label)
        sphere = rng.normal(size=(n, 3))
        direction = sphere * (np.sqrt(3 * n) / np.linalg.norm(sphere))
        return Product(direction, np.tensordot(label, direction, axes=2))
    n = label.shape[2]
    sphere = rng.normal(size=len(label))
    weights = sphere * np.sqrt(3 * n) / np.linalg.norm(sphere) / np.linalg.norm(label[:, 0], axis=(1, 2))
    return Product(*np.tensordot(weights, label, axes=1))


def gather(entries: MutableMapping[str, Any], columns: MutableMapping[str, Any], name: str, atoms: int, source: str) -> None:
    """Move a Hessian that stands in the columns of a frame, or in parts, into one entry called ``name``, as the label it is.

    Args:
        entries: Values of the frame by name.
        columns: Values per atom by name; an atom's row of a whole matrix has 9 atoms numbers, that of K products 3 K.
        name: Name of the Hessian in the file.
        atoms: Number of atoms.
        source: File and frame, for messages.

    Raises:
        ValueError: products without directions or columns, or of another number; a column that does not exist.
    """
    if name in columns:
        entries[name] = np.reshape(columns.pop(name), (atoms, 3, -1, 3))
    held = {ending: _part(entries, columns, name + ending, atoms) for ending in (PRODUCTS, DIRECTIONS, COLUMNS)}
    products, directions, numbers = held.values()
    if products is None and directions is None and numbers is None:
        return
    if products is None or (directions is None) == (numbers is None):
        wanted = f"{name + PRODUCTS!r} with either {name + DIRECTIONS!r} or {name + COLUMNS!r}"
        raise ValueError(f"{source}: products of a Hessian are read from {wanted}; give these two")
    if numbers is not None:
        found = np.ravel(numbers).astype(int)
        if found.min(initial=0) < 0 or found.max(initial=0) >= 3 * atoms:
            raise ValueError(f"{source}: {name + COLUMNS!r} holds a number that is not from 0 to {3 * atoms - 1}, 3 i + a")
        directions = unit_directions(found, atoms)
    if np.shape(products) != np.shape(directions):
        what = f"{name + PRODUCTS!r} has shape {np.shape(products)}, but its directions have {np.shape(directions)}"
        raise ValueError(f"{source}: {what}; a product (atoms, 3) belongs to each direction")
    if name in entries:
        raise ValueError(f"{source}: holds both {name!r} and {name + PRODUCTS!r}; leave one of them out")
    entries[name] = of_products(np.asarray(directions, float), np.asarray(products, float))


def _part(entries: MutableMapping[str, Any], columns: MutableMapping[str, Any], name: str, atoms: int) -> Any:
    """Take one part of a label out of a frame: vectors as (K, atoms, 3), numbers of columns as they are; None for none."""
    if name in columns:
        return np.moveaxis(np.reshape(columns.pop(name), (atoms, -1, 3)), 0, 1)
    value = entries.pop(name, None)
    if value is None or name.endswith(COLUMNS):
        return value
    return np.reshape(value, (-1, atoms, 3)) if np.size(value) % (3 * atoms) == 0 else value


def parts(label: np.ndarray, name: str) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Split a label into entries and columns of a frame, by name, as ``gather`` reads them."""
    if is_whole(label):
        return {name: label.ravel()}, {}
    rows = np.moveaxis(label, 2, 0)
    flat = {name + ending: rows[:, :, k].reshape(len(rows), -1) for k, ending in enumerate((DIRECTIONS, PRODUCTS))}
    return {}, flat
