import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from deephash.hamming.codes import pack, sign
from deephash.metrics.average_precision import ranking
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import HammingRanking, evaluate_codes


def logits_and_labels():
    generator = torch.Generator().manual_seed(0)
    return {
        role: (
            torch.randn(count, 48, generator=generator),
            torch.randint(4, (count,), generator=generator),
        )
        for role, count in {"query": 23, "database": 211}.items()
    }


def filled(parts):
    """The metric, with the given share of each side in batches of 16."""
    metric = HammingRanking(bits=48, ks=(1, 10, 100))
    for role, (logits, labels) in logits_and_labels().items():
        rows = parts[role]
        for a, b in zip(logits[rows].split(16), labels[rows].split(16), strict=True):
            metric.update(a, b, role)
    return metric


WHOLE = {"query": slice(None), "database": slice(None)}
SHARES = (
    {"query": slice(0, 5), "database": slice(0, 180)},
    {"query": slice(5, None), "database": slice(180, None)},
)


def test_batches_add_up_to_the_pure_function():
    (queries, query_labels), (database, database_labels) = logits_and_labels().values()
    database_words = pack(sign(database))
    expected = evaluate_codes(
        pack(sign(queries)), query_labels, database_words, database_labels, 48,
        ks=(1, 10, 100), radius=2,
    )  # fmt: skip
    metric = filled(WHOLE)
    assert metric.compute() == expected.scalars | code_health(database_words, 48)
    metric.reset()
    assert metric.query_words == []


def multi_hot():
    """A metric whose labels are multi-hot, and what `evaluate_codes` takes for the same."""
    metric, sides = HammingRanking(bits=48, ks=(1, 10)), []
    for role, (logits, classes) in logits_and_labels().items():
        labels = torch.eye(4, dtype=torch.int64)[classes] | torch.eye(4, dtype=torch.int64)[0]
        metric.update(logits[:9], labels[:9], role)
        metric.update(logits[9:], labels[9:], role)
        sides += [pack(sign(logits)), labels]
    return metric, sides


def test_batches_of_multi_hot_labels_have_the_graded_figures():
    metric, sides = multi_hot()
    found = metric.compute()
    expected = evaluate_codes(*sides, 48, ks=(1, 10), radius=2).scalars
    assert found == expected | code_health(sides[2], 48)
    graded = {f"{name}{cut}" for name in ("ndcg", "weighted_map") for cut in ("", "@1", "@10")}
    assert found.keys() - filled(WHOLE).compute().keys() == graded


def test_queries_measured_some_at_a_time_are_all_there(monkeypatch):
    whole, graded = filled(WHOLE).compute(), multi_hot()[0].compute()
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 4)
    assert filled(WHOLE).compute() == pytest.approx(whole, rel=1e-12)
    assert multi_hot()[0].compute() == pytest.approx(graded, rel=1e-12)


def in_process(rank, port, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results.put((rank, filled(SHARES[rank]).compute()))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_with_unequal_shares_find_what_one_finds():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    mp.spawn(in_process, args=(port, results), nprocs=2)
    found = dict(results.get() for _ in range(2))
    assert found[0] == found[1] == filled(WHOLE).compute()


def test_errors_name_the_value_and_the_fix():
    metric = HammingRanking(bits=12)
    with pytest.raises(ValueError, match=r"query logits have shape \(3, 12\)"):
        metric.update(torch.zeros(3, 12), torch.zeros(2), "query")
    with pytest.raises(ValueError, match="role is 'test'"):
        metric.update(torch.zeros(3, 12), torch.zeros(3), "test")
