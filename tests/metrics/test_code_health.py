import numpy as np
import pytest

from deephash.hamming.codes import pack
from deephash.metrics.code_health import code_health


def test_code_health_of_known_codes():
    codes = np.array([[1, 1, 1, 1], [1, 1, -1, 1], [-1, -1, 1, 1], [-1, -1, -1, 1]])
    assert code_health(pack(codes), 4) == pytest.approx(
        {
            "bit_imbalance": 1 / 4,  # only the last bit, which is constant, is not balanced
            "bit_correlation": 1 / 3,  # of the three pairs that vary, one is a copy
            "constant_bits": 1,
            "distinct_codes": 4,
            "distinct_codes_share": 1,
        }
    )


def test_collapsed_codes_have_only_constant_bits():
    health = code_health(pack(np.ones((5, 70))), 70)
    assert health["distinct_codes"] == 1
    assert health["constant_bits"] == 70


def test_bit_correlation_equals_numpys():
    codes = np.sign(np.random.default_rng(0).normal(size=(50, 6)) + 0.3)
    expected = np.abs(np.corrcoef(codes.T)[~np.eye(6, dtype=bool)]).mean()
    assert code_health(pack(codes), 6)["bit_correlation"] == pytest.approx(expected)


def test_chunks_do_not_change_the_statistics(monkeypatch):
    codes = np.random.default_rng(0).choice([-1, 1], (1000, 70))
    expected = code_health(pack(codes), 70)
    monkeypatch.setattr("deephash.metrics.code_health.CODES_PER_CHUNK", 64)
    assert code_health(pack(codes), 70) == expected


def test_no_codes_are_refused():
    with pytest.raises(ValueError, match="no codes to measure"):
        code_health(np.empty((0, 1), np.uint64), 48)
