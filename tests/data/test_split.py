import numpy as np
import pytest

from equipot.data.config import DataConfig
from equipot.data.read import load_data
from equipot.data.split import Chain, Subset, split


@pytest.mark.parametrize(
    ("valid", "limit", "sizes"), [(0.1, None, (90, 10)), (7, None, (93, 7)), (0.2, 50, (50, 10)), (5, 45, (45, 5))]
)
def test_sizes(valid, limit, sizes):
    train, held = split(100, valid, limit, seed=0)
    assert (len(train), len(held)) == sizes
    assert not set(train) & set(held) and np.all(np.diff(train) > 0)


def test_the_seed_decides():
    same = [split(100, 0.1, 50, seed=3) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*same, strict=True))
    assert not np.array_equal(split(100, 0.1, 50, seed=4)[0], same[0][0])
    # The numbers themselves, so that a change of the generator is noticed.
    assert split(10, 3, None, seed=0)[1].tolist() == [0, 1, 8]


@pytest.mark.parametrize("valid", [0, 10, 0.1, 0.3])
def test_smaller_limits_are_nested(valid):
    few, more = split(1000, valid, 50, 0), split(1000, valid, 100, 0)
    assert set(few[0]) < set(more[0]) and set(few[1]) <= set(more[1])


def test_first_means_first():
    train, held = split(100, 10, 20, 0, first=True)
    assert train.tolist() == sorted(set(range(100)) - set(held))[:20]


@pytest.mark.parametrize(("valid", "limit"), [(100, None), (10, 95), (-1, None), (1.5, None)])
def test_impossible_splits(valid, limit):
    with pytest.raises(ValueError, match="valid"):
        split(100, valid, limit, 0)


def test_lazy_sequences(crystals):
    both = Chain((crystals[:3], Subset(crystals, np.array([7, 5]))))
    assert [s.source for s in both] == [crystals[k].source for k in (0, 1, 2, 7, 5)]
    assert both[-1] is crystals[5] and both[1:4][-1] is crystals[7] and len(both) == 5
    with pytest.raises(IndexError):
        both[5]


def test_sets_of_a_run_are_reproducible(crystals, write, tmp_path):
    config = DataConfig((str(write(crystals[:8], "a.xyz")), str(write(crystals[8:], "b.xyz"))), valid=0.25)
    names = lambda data: [[s.source for s in part] for part in (data.train, data.valid)]
    first = load_data(config, 5)
    assert names(first) == names(load_data(config, 5)) != names(load_data(config, 6))
    assert (len(first.train), len(first.valid)) == (9, 3)
    files = DataConfig(str(write(crystals[:8], "a.xyz")), valid=str(write(crystals[8:], "b.xyz")), limit=4, limit_by="first")
    data = load_data(files, 0)
    assert [s.source[-1] for s in data.train] == list("0123") and len(data.valid) == 4
    with pytest.raises(ValueError, match="limit = 0"):
        DataConfig("a.xyz", limit=0)
