import numpy as np
import pytest

from deephash.metrics.rank_sums import TABLE_SIZE, cumulative_discounts, harmonic_numbers


@pytest.mark.parametrize(
    ("function", "term"),
    [(harmonic_numbers, lambda i: 1 / i), (cumulative_discounts, lambda i: 1 / np.log2(1 + i))],
)
def test_sums_equal_sums_of_their_terms(function, term):
    """Below, at and far beyond the end of the table; the reference adds in extended precision."""
    last = 3_000_000
    expected = np.append(0, np.cumsum(term(np.arange(1, last + 1)).astype(np.longdouble)))
    near = np.arange(TABLE_SIZE - 3, TABLE_SIZE + 3)
    ranks = np.unique([0, 1, 2, *near, *np.geomspace(1, last, 500).astype(int)])
    np.testing.assert_allclose(function(ranks), expected[ranks].astype(float), rtol=1e-13)
    rows = ranks[:6].reshape(2, 3)
    np.testing.assert_array_equal(function(rows), function(ranks[:6]).reshape(2, 3))


def test_differences_of_high_ranks_are_accurate():
    ranks = np.array([2**40, 2**40 + 1000])
    assert np.diff(harmonic_numbers(ranks)).item() == pytest.approx(1000 / 2**40, rel=1e-4)
    discount = 1 / np.log2(2**40)
    assert np.diff(cumulative_discounts(ranks)).item() == pytest.approx(1000 * discount, rel=1e-4)
