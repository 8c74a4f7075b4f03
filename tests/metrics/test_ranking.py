import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from deephash.hamming.codes import pack, sign
from deephash.metrics import ranking
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import HammingRanking, evaluate_codes

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
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results.put((rank, make_metric(ROWS_BY_RANK[rank]).compute()))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_with_unequal_shards_equal_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    mp.spawn(compute_on_rank, args=(port, results), nprocs=2)
    by_rank = dict(results.get() for _ in range(2))
    assert by_rank[0] == by_rank[1] == make_metric(ALL_ROWS).compute()


def test_errors_name_the_value_and_the_fix():
    metric = HammingRanking(bits=12)
    with pytest.raises(ValueError, match=r"query logits have shape \(3, 12\)"):
        metric.update(torch.zeros(3, 12), torch.zeros(2), "query")
    with pytest.raises(ValueError, match="role is 'test'"):
        metric.update(torch.zeros(3, 12), torch.zeros(3), "test")
    with pytest.raises(ValueError, match="no queries or no database"):
        metric.compute()
