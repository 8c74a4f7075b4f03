"""The contract of a method, for every method in conf/method."""

import pytest
import torch
from components import compose_component
from conftest import options

from deephash.core.instantiate import build
from deephash.methods.base import HashBatch, Method, shares_label


@pytest.fixture(params=options("method"))
def method(request: pytest.FixtureRequest) -> Method:
    torch.manual_seed(0)
    return build("method", compose_component("method", request.param), 10, 12, 3)


def test_shapes_and_terms(method: Method) -> None:
    logits = method(torch.randn(8, 10))
    terms = method.loss(HashBatch(logits, torch.arange(8) % 3))
    assert logits.shape == (8, 12)
    assert terms["loss"].shape == ()
    assert all(torch.isfinite(value) for value in terms.values())


def test_gradient_equals_finite_differences(method: Method) -> None:
    logits = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % 3
    method.double()
    assert torch.autograd.gradcheck(lambda u: method.loss(HashBatch(u, labels))["loss"], logits)


def test_learns_to_separate_clusters(method: Method) -> None:
    # After training, codes within a cluster are nearer than codes of any two clusters.
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    centres = torch.randn(3, 10, generator=generator) * 3
    features = centres[labels] + torch.randn(60, 10, generator=generator) * 0.3
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        method.loss(HashBatch(method(features), labels))["loss"].backward()
        optimizer.step()
    codes = torch.where(method(features) >= 0, 1.0, -1.0)
    inner = codes @ codes.T
    similar = shares_label(labels, labels)
    assert inner[similar].min() > inner[~similar].max()


def test_one_hot_labels_equal_class_indices(method: Method) -> None:
    logits, labels = torch.randn(9, 12), torch.arange(9) % 3
    terms = method.loss(HashBatch(logits, torch.eye(3, dtype=torch.uint8)[labels]))
    torch.testing.assert_close(terms, method.loss(HashBatch(logits, labels)))


def test_labels_that_no_two_items_share_change_nothing(method: Method) -> None:
    logits, labels = torch.randn(9, 12), torch.arange(9) % 3
    unshared = torch.eye(100, dtype=torch.uint8)[:9]
    multi_hot = torch.cat([torch.eye(3, dtype=torch.uint8)[labels], unshared], dim=1)
    expected = method.loss(HashBatch(logits, labels))
    torch.testing.assert_close(method.loss(HashBatch(logits, multi_hot)), expected)


def test_order_of_the_batch_does_not_matter(method: Method) -> None:
    logits, labels = torch.randn(9, 12), torch.arange(9) % 3
    order = torch.randperm(9)
    loss = method.loss(HashBatch(logits, labels))["loss"]
    shuffled = method.loss(HashBatch(logits[order], labels[order]))["loss"]
    torch.testing.assert_close(loss, shuffled)


def test_items_are_similar_if_they_share_a_label() -> None:
    assert shares_label(torch.tensor([1, 2]), torch.tensor([2, 1, 1])).tolist() == [
        [False, True, True],
        [True, False, False],
    ]
    multi_hot = torch.tensor([[1, 1, 0], [0, 0, 1]], dtype=torch.uint8)
    others = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.uint8)
    assert shares_label(multi_hot, others).tolist() == [[True, True, False], [True, False, False]]
