import logging

import pytest

from deephash.experiment.evaluate import limit_ranks
from deephash.experiment.settings import Evaluation


@pytest.mark.parametrize(
    ("ks", "size", "expected"),
    [
        ([100, 1000], 1000, [100, 1000]),
        ([1000, 100], 1000, [1000, 100]),
        ([100, 1000], 81, [81]),
        ([5, 100, 1000], 81, [5, 81]),
        ([], 1, []),
    ],
)
def test_ranks_beyond_the_database_become_its_size(
    ks: list[int], size: int, expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = Evaluation(batch_size=10, ks=ks, radius=2)
    with caplog.at_level(logging.WARNING):
        assert limit_ranks(evaluation, size).ks == expected
    told = [f"evaluation.ks={ks} becomes {expected}: the database has {size} images"]
    assert caplog.messages == (told if ks != expected else [])
