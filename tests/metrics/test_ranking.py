import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from deephash.hamming.codes import pack, sign
from deephash.metrics import ranking
from deephash.metrics.code_health import code_health
from deephash.metrics.hamming_ranking import HammingRanking
from deephash.metrics.ranking import evaluate_codes

ALL_ROWS = {"query": slice(None), "database": slice(None)}
ROWS_BY_RANK = (
    {"query": slice(0, 5), "database": slice(0, 180)},
    {"query": slice(5, None), "database": slice(180, None)},
)


def logits_and_labels():
    generator = torch.Generator().manual_seed(0)
    return {
        role: (
            torch.randn(count, 48, generator=generator),
            torch.randint(4, (count,), generator=generator),
        )
        for role, count in {"query": 23, "database": 211}.items()
    }


def make_metric(rows_by_role):
    """The metric after updates with the given rows of each role, in batches of 16."""
    metric = HammingRanking(bits=48, ks=(1, 10, 100))
    for role, (logits, labels) in logits_and_labels().items():
        rows = rows_by_role[role]
        for a, b in zip(logits[rows].split(16), labels[rows].split(16), strict=True):
            metric.update(a, b, role)
    return metric


def make_multi_hot_metric():
    """A metric with multi-hot labels, and the arguments of `evaluate_codes` for the same data."""
    metric, sides = HammingRanking(bits=48, ks=(1, 10)), []
    for role, (logits, classes) in logits_and_labels().items():
        labels = torch.eye(4, dtype=torch.int64)[classes] | torch.eye(4, dtype=torch.int64)[0]
        metric.update(logits[:9], labels[:9], role)
        metric.update(logits[9:], labels[9:], role)
        sides += [pack(sign(logits)), labels]
    return metric, sides


def test_metric_over_batches_equals_evaluate_codes():
    (queries, query_labels), (database, database_labels) = logits_and_labels().values()
    database_words = pack(sign(database))
    expected = evaluate_codes(
        pack(sign(queries)), query_labels, database_words, database_labels, 48,
        ks=(1, 10, 100), radius=2,
    )  # fmt: skip
    metric = make_metric(ALL_ROWS)
    assert metric.compute() == expected.scalars | code_health(database_words, 48)
    metric.reset()
    assert metric.query_words == []


def test_metric_over_batches_of_multi_hot_labels_has_graded_metrics():
    metric, sides = make_multi_hot_metric()
    result = metric.compute()
    expected = evaluate_codes(*sides, 48, ks=(1, 10), radius=2).scalars
    assert result == expected | code_health(sides[2], 48)
    graded = {f"{name}{cut}" for name in ("ndcg", "weighted_map") for cut in ("", "@1", "@10")}
    assert result.keys() - make_metric(ALL_ROWS).compute().keys() == graded


def test_chunks_of_queries_do_not_change_the_metrics(monkeypatch):
    binary = make_metric(ALL_ROWS).compute()
    graded = make_multi_hot_metric()[0].compute()
    monkeypatch.setattr(ranking, "QUERIES_PER_CHUNK", 4)
    assert make_metric(ALL_ROWS).compute() == pytest.approx(binary, rel=1e-12)
    assert make_multi_hot_metric()[0].compute() == pytest.approx(graded, rel=1e-12)


def compute_on_rank(rank, port, results):
    """Compute from unequal shards, and where one process has no update at all."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    shards = make_metric(ROWS_BY_RANK[rank])
    first_only = make_metric(ALL_ROWS) if rank == 0 else HammingRanking(bits=48, ks=(1, 10, 100))
    second_only = make_multi_hot_metric()[0] if rank == 1 else HammingRanking(bits=48, ks=(1, 10))
    results.put([metric.compute() for metric in (shards, first_only, second_only)])
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_with_unequal_shards_equal_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(compute_on_rank, args=(port, results), nprocs=2)
    whole = make_metric(ALL_ROWS).compute()
    for values in (results.get(), results.get()):
        assert values == [whole, whole, make_multi_hot_metric()[0].compute()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 0}, "bits is 0"),
        ({"bits": 12.0}, "bits is 12.0: give an integer"),
        ({"bits": 12, "ks": [0]}, r"ks are \[0\]: give ranks from 1"),
        ({"bits": 12, "ks": [2.5]}, "k is 2.5: give an integer"),
        ({"bits": 12, "radius": 13}, "radius is 13: codes of 12 bits have radii from 0 to 12"),
    ],
)
def test_construction_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        HammingRanking(**arguments)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3, 1, dtype=torch.int64), r"query labels have shape \(3, 1\)"),
        (torch.tensor([0, -1, 1]), "value -1 in row 1"),
        (torch.eye(3, dtype=torch.int64), r"shape \(3, 3\), earlier labels \(3,\)"),
    ],
)
def test_update_refuses_labels(labels, message):
    metric = HammingRanking(bits=12)
    metric.update(torch.zeros(3, 12), torch.zeros(3, dtype=torch.int64), "database")
    with pytest.raises(ValueError, match=message):
        metric.update(torch.zeros(3, 12), labels, "query")


def test_a_batch_has_no_value():
    with pytest.raises(NotImplementedError, match="call update for each batch"):
        HammingRanking(bits=12)(torch.zeros(3, 12), torch.zeros(3, dtype=torch.int64), "query")


def test_errors_name_the_value_and_the_fix():
    metric = HammingRanking(bits=12)
    with pytest.raises(ValueError, match=r"query logits have shape \(3, 12\)"):
        metric.update(torch.zeros(3, 12), torch.zeros(2), "query")
    with pytest.raises(ValueError, match="role is 'test'"):
        metric.update(torch.zeros(3, 12), torch.zeros(3), "test")
    with pytest.raises(ValueError, match="no queries or no database"):
        metric.compute()
