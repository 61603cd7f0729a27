"""Mean and standard error of arrays that come one after the other, with a bounded number of them in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Pooled(NamedTuple):
    """Mean of arrays, in their unit."""

    mean: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]
    """Standard error from the scatter of the blocks, which are taken as independent; NaN for fewer than two."""
    blocks: int


class Pool:
    """Sums of arrays over successive blocks; when there are too many blocks, neighbours are joined and blocks become longer.

    Args:
        shape: Shape of the arrays.
        most: Largest number of blocks, even.
    """

    def __init__(self, shape: tuple[int, ...], most: int = 64) -> None:
        self.sums = np.zeros((most, *shape))
        self.per_block, self.blocks, self.inside = 1, 0, 0
        self.rest = np.zeros(shape)

    def add(self, array: Float[np.ndarray, "..."]) -> None:
        """Add an array."""
        self.rest += array
        self.inside += 1
        if self.inside < self.per_block:
            return
        if self.blocks == len(self.sums):
            half = self.blocks // 2
            self.sums[:half] = self.sums[0::2] + self.sums[1::2]
            self.blocks, self.per_block = half, 2 * self.per_block
            # The array that came last fills only a part of a block that is now longer.
            return
        self.sums[self.blocks] = self.rest
        self.blocks, self.inside = self.blocks + 1, 0
        self.rest = np.zeros_like(self.rest)

    @property
    def values(self) -> Float[np.ndarray, "parts ..."]:
        """Mean of each complete block."""
        return self.sums[: self.blocks] / self.per_block

    def result(self) -> Pooled:
        """Compute mean and error; the arrays of an incomplete last block count in the mean alone.

        Raises:
            ValueError: nothing was added.
        """
        count = self.blocks * self.per_block + self.inside
        if not count:
            raise ValueError("a mean of nothing: no array was added")
        mean = (self.sums[: self.blocks].sum(axis=0) + self.rest) / count
        if self.blocks < 2:
            return Pooled(mean, np.full(mean.shape, np.nan), self.blocks)
        return Pooled(mean, self.values.std(axis=0, ddof=1) / np.sqrt(self.blocks), self.blocks)
