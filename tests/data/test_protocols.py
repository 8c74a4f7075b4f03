import numpy as np
import pytest
import torch
from conftest import composed

from deephash.config import build, checked
from deephash.data.image_set import ImageSet
from deephash.data.protocols import content_overlap, per_class, test_vs_train, with_validation
from deephash.errors import UserError

test_vs_train.__test__ = False  # type: ignore[attr-defined]  # a protocol, not a test


def image_set(per_class: int = 700, classes: int = 10, test: int = 100) -> ImageSet:
    n = per_class * classes
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="made",
        images=torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8),
        labels=torch.arange(n) % classes,
        ids=np.array([f"made/{i}" for i in range(n)]),
        classes=tuple(f"class {c}" for c in range(classes)),
        is_test=np.arange(n) < test,
    )


def counts(made: ImageSet, indices: np.ndarray) -> list[int]:
    return np.bincount(made.labels.numpy()[indices], minlength=len(made.classes)).tolist()


def protocol(name: str, made: ImageSet, *overrides: str, seed: int = 0):
    settings = checked(composed(f"protocol={name}", *overrides))
    return build("protocol", settings.protocol, made, seed)


def test_test_vs_train() -> None:
    made = image_set()
    split = protocol("test-vs-train", made)
    assert split.query.tolist() == list(range(100))
    assert split.train.tolist() == split.database.tolist() == list(range(100, 7000))


@pytest.mark.parametrize(("name", "searched"), [("1k-59k", 600), ("1k-54k", 100)])
def test_sampled_protocols(name: str, searched: int) -> None:
    made = image_set()
    split = protocol(name, made)
    assert counts(made, split.query) == [100] * 10
    assert counts(made, split.train) == [500] * 10
    assert counts(made, split.database) == [searched] * 10
    assert bool(np.isin(split.train, split.database).all()) == (name == "1k-59k")


def test_validation_is_stratified_and_stays_in_the_database() -> None:
    made = image_set()
    before = test_vs_train(made, seed=0)
    split = with_validation(before, made.labels.numpy(), share=0.1, database=500, seed=0)
    assert counts(made, split.validation) == [69] * 10
    assert len(split.validation_database) == 500
    assert np.union1d(split.train, split.validation).tolist() == before.train.tolist()
    assert split.database.tolist() == before.database.tolist()


@pytest.mark.parametrize("asked", ["protocol.queries=201", "protocol.train=601"])
def test_more_than_a_class_has_is_refused(asked: str) -> None:
    made = image_set()
    with pytest.raises(UserError, match=r"ask 701 images of class 'class 0' of made, .* 700"):
        protocol("1k-59k", made, asked)


def test_a_set_without_test_images_is_refused() -> None:
    with pytest.raises(UserError, match="no official test images"):
        protocol("test-vs-train", image_set(test=0))


def test_an_empty_database_is_refused() -> None:
    with pytest.raises(UserError, match="no image is left for the database"):
        per_class(image_set(), 0, queries=30, train=None, train_in_database=False)


def test_content_overlap_counts_copies_under_other_ids() -> None:
    made = image_set()
    split = test_vs_train(made, seed=0)
    assert content_overlap(made, split) == 0
    made.images[split.query[:3]] = made.images[split.database[40:43]]
    assert content_overlap(made, split) == 3


def test_checksum_of_a_split_sees_every_part() -> None:
    made = image_set()
    split = with_validation(
        test_vs_train(made, seed=0), made.labels.numpy(), share=0.1, database=500, seed=0
    )
    sums = {split.checksum}
    for name, indices in split.arrays().items():
        sums.add(type(split)(**{**split.arrays(), name: indices[1:]}).checksum)
    assert len(sums) == 6
