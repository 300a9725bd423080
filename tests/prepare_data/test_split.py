import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_bonsai.prepare_data import split


@st.composite
def strata_and_counts(draw):
    sizes = draw(st.lists(st.integers(2, 60), min_size=1, max_size=6))
    strata = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(draw(st.integers(0, 1000))).shuffle(strata)
    return strata, draw(st.integers(len(sizes), sum(sizes) - len(sizes))), draw(st.integers(0, 1000))


@settings(max_examples=150, deadline=None)
@given(strata_and_counts())
def test_a_draw_is_exact_seeded_and_stratified(case):
    """A draw of another size, or that depends on more than the seed, or lets a class vanish, spoils the accuracy."""
    strata, count, seed = case
    chosen = split.draw(strata, count, seed)
    assert chosen.sum() == count
    assert (chosen == split.draw(strata, count, seed)).all()
    sizes = np.bincount(strata)
    taken = np.bincount(strata[chosen], minlength=len(sizes))
    assert (taken >= 1).all() and (sizes - taken >= 1).all()
    quota = count * sizes / sizes.sum()
    inside = (quota >= 1) & (quota <= sizes - 1)
    if inside.all():
        assert (np.abs(taken - quota) < 1 + 1e-9).all()


def test_another_seed_draws_other_rows():
    """A seed that is not used would make repeated runs look more certain than they are."""
    strata = np.arange(1000) % 2
    assert (split.draw(strata, 200, 0) != split.draw(strata, 200, 1)).any()


def test_a_draw_that_does_not_fit_is_refused():
    """Silently drawing fewer rows would break what a flag promises."""
    with pytest.raises(ValueError):
        split.draw(np.zeros(10, int), 10, 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40))
def test_groups_are_those_of_equal_keys(values):
    """Rows grouped wrongly would be dropped, or leak."""
    keys = np.array([[value % 2, value // 2] for value in values], np.uint64).reshape(-1, 2)
    numbers = split.groups(keys)
    for one, a in zip(values, numbers, strict=True):
        for other, b in zip(values, numbers, strict=True):
            assert (one == other) == (a == b)
    first = split.first_of_each(numbers)
    assert [values[i] for i in np.flatnonzero(first)] == list(dict.fromkeys(values))


def test_quantile_bins_are_even():
    """Uneven tenths would leave a range of the labels out of the test."""
    values = np.random.default_rng(0).normal(size=105)
    bins = split.quantile_bins(values)
    assert set(np.bincount(bins)) <= {10, 11}
    assert values[bins == 0].max() < values[bins == 9].min()


def test_a_row_stays_on_its_side_when_rows_are_added():
    """A test row of the last run that the next one trains on, so that the champion is judged on what it has seen."""
    keys = np.random.default_rng(0).integers(0, 2**64, (4000, 2), np.uint64)
    first, second = split.by_hash(keys[:1000], 0.2, 0), split.by_hash(keys, 0.2, 0)
    assert (second[:1000] == first).all()
    assert 0.17 < second.mean() < 0.23
    assert abs(second[split.by_hash(keys, 0.5, 1)].mean() - 0.2) < 0.03
