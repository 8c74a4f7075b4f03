from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed

from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.data.image_set import ImageSet
from deephash.data.protocols import given, per_class, stratified, test_vs_train
from deephash.data.splits import drop_query_duplicates, hold_out_validation, strata
from deephash.experiment.settings import checked

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
    split = hold_out_validation(before, made.labels.numpy(), share=0.1, database=500, seed=0)
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


def test_copies_of_queries_are_left_out_of_database_and_training() -> None:
    made = image_set()
    split = test_vs_train(made, seed=0)
    assert drop_query_duplicates(made, split).checksum == split.checksum
    copied = split.database[40:43]
    made = image_set()
    made.images[split.query[:3]] = made.images[copied]
    found = drop_query_duplicates(made, split)
    assert found.query.tolist() == split.query.tolist()
    assert found.database.tolist() == np.setdiff1d(split.database, copied).tolist()
    assert found.train.tolist() == np.setdiff1d(split.train, copied).tolist()


def test_checksum_of_a_split_sees_every_part() -> None:
    made = image_set()
    split = hold_out_validation(
        test_vs_train(made, seed=0), made.labels.numpy(), share=0.1, database=500, seed=0
    )
    sums = {split.checksum}
    for name, indices in split.arrays().items():
        sums.add(type(split)(**{**split.arrays(), name: indices[1:]}).checksum)
    assert len(sums) == 6


def multi_label(n: int = 3000, classes: int = 5) -> ImageSet:
    """Class c with chance 1 / (c + 1), and class 0 where there is no other."""
    made = image_set(per_class=n // classes, classes=classes)
    chances = 1 / np.arange(1, classes + 1)
    labels = (np.random.default_rng(0).random((n, classes)) < chances * 0.5).astype(np.uint8)
    labels[~labels.any(axis=1), 0] = 1
    return replace(made, labels=torch.from_numpy(labels))


def test_each_class_of_several_labels_draws_images_of_its_own() -> None:
    made = multi_label()
    split = protocol("tc21", made, "protocol.queries=20", "protocol.train=50")
    assert len(split.query) == 20 * 5
    assert len(split.train) == 50 * 5
    assert not np.intersect1d(split.query, split.train).size
    assert split.database.tolist() == np.setdiff1d(np.arange(3000), split.query).tolist()
    labels = made.labels.numpy()
    assert (labels[split.query].sum(axis=0) >= 20).all()
    assert (labels[split.train].sum(axis=0) >= 50).all()


def test_strata_are_classes_or_the_rarest_of_several() -> None:
    assert strata(np.array([3, 1, 1])).tolist() == [3, 1, 1]
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1], [0, 1, 0]])
    assert strata(labels).tolist() == [0, 1, 2, 2, 1]  # of 4, 3 and 2 images


def test_validation_of_several_labels_has_each_class_in_its_share() -> None:
    made = multi_label()
    before = protocol("hashnet", made, "protocol.queries=300", "protocol.train=2000")
    labels = made.labels.numpy()
    split = hold_out_validation(before, labels, share=0.1, database=500, seed=0)
    share = labels[split.validation].sum(axis=0) / labels[before.train].sum(axis=0)
    np.testing.assert_allclose(share, 0.1, atol=0.04)
    assert len(split.validation) == pytest.approx(200, abs=5)


def test_hashnet_draws_from_all_images() -> None:
    made = image_set()
    split = protocol("hashnet", made, "protocol.queries=500", "protocol.train=1000")
    assert (len(split.query), len(split.train), len(split.database)) == (500, 1000, 6500)
    assert np.isin(split.train, split.database).all()
    assert not np.intersect1d(split.query, split.database).size
    with pytest.raises(UserError, match=r"queries=5000 and protocol.train=10000 .* 7000 images"):
        protocol("hashnet", made)


def test_a_tenth_of_each_class_queries() -> None:
    made = image_set(per_class=70)
    split = protocol("10-percent", made)
    assert counts(made, split.query) == [7] * 10
    assert split.train.tolist() == split.database.tolist()
    assert len(split.database) + len(split.query) == len(made)


@pytest.mark.parametrize("name", ["10-percent", "30-per-class", "1k-59k"])
@pytest.mark.parametrize("test", [0, 100])
def test_that_a_given_split_is_not_kept_is_told(
    name: str, test: int, capsys: pytest.CaptureFixture
) -> None:
    protocol(name, image_set(test=test))
    sentence = (
        "made: its 100 test images are drawn from as all others are; protocol=test-vs-train "
        "queries with them\n"
    )
    assert capsys.readouterr().out == sentence * bool(test)


def test_a_class_of_one_image_gives_no_query() -> None:
    labels = torch.tensor([0] * 20 + [1])
    made = replace(image_set(per_class=3, classes=7), labels=labels, classes=("a", "b"))
    assert stratified(made, 0, queries=0.1).query.max() < 20


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=rf"protocol.queries={share} makes"):
        stratified(image_set(per_class=70), 0, queries=share)


def lists(folder: Path, **names: list[str]) -> list[str]:
    for part, lines in names.items():
        (folder / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines))
    return [f"protocol.{part}={folder / part}.txt" for part in names]


def test_given_lists(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = image_set(per_class=4)
    overrides = lists(
        tmp_path,
        queries=["made/3 1 0 0", "made/1\t0 0 1", ""],
        train=["C:\\photos\\made\\7", "5"],
        database=["made/5", "made/7", "made/9", "made/5"],
    )
    split = protocol("given", made, *overrides)
    assert split.query.tolist() == [1, 3]
    assert split.train.tolist() == [5, 7]
    assert split.database.tolist() == [5, 7, 9]
    assert capsys.readouterr().out == (
        f"{tmp_path}/database.txt: 1 of 4 lines name an image again\n"
    )
    split = protocol("given", made, *overrides[:2])
    assert split.database.tolist() == [i for i in range(40) if i not in (1, 3)]


@pytest.mark.parametrize(
    ("ids", "line", "named"),
    [
        (["cat/0.jpg", "dog/1.jpg"], "dog/0.jpg", None),
        (["cat/0.jpg", "dog/1.jpg"], "dog/1.jpg", "dog/1.jpg"),
        (["cat/0.jpg", "dog/1.jpg"], "1.jpg 0 1", "dog/1.jpg"),
        (["cat/0.jpg", "dog/1.jpg"], "/elsewhere/photos/dog/1.jpg", "dog/1.jpg"),
        (["photos/cat/0.jpg", "photos/dog/1.jpg"], "dog/1.jpg", "photos/dog/1.jpg"),
        (["photos/cat/0.jpg", "photos/dog/1.jpg"], "og/1.jpg", None),
        (["0_1.jpg", "1_1.jpg"], "zoo\\1_1.jpg 1", "1_1.jpg"),
        (["cat/0.jpg", "dog/0.jpg"], "dog/0.jpg", "dog/0.jpg"),
        (["cat/0.jpg", "0.jpg"], "0.jpg", "0.jpg"),
        (["cat/0.jpg", "0.jpg"], "x/cat/0.jpg", "cat/0.jpg"),
        (["img", "img 1"], "img 1", "img 1"),
        (["img", "img 1"], "img 0 1", "img"),
        (["a/img 1", "a/img 2"], "img 1", "a/img 1"),
        (["a\u20281.jpg", "b.jpg"], "a\u20281.jpg", "a\u20281.jpg"),
    ],
)
def test_a_line_names_an_image_by_whole_folders(
    ids: list[str], line: str, named: str | None, tmp_path: Path
) -> None:
    made = replace(image_set(per_class=1, classes=3), ids=np.array([*ids, "last"]))
    query, train = tmp_path / "query.txt", tmp_path / "train.txt"
    query.write_text(f"{line}\n", encoding="utf-8-sig")  # as spreadsheets begin a file
    train.write_text("last\n")

    def split() -> list[int]:
        where = {"queries": str(query), "train": str(train), "database": None}
        return given(made, 0, **where, tolerated=0).query.tolist()

    if named is None:
        with pytest.raises(UserError, match="names 1 images, of which made lacks 1"):
            split()
    else:
        assert split() == [ids.index(named)]


def test_a_line_that_names_one_of_several_images_is_refused(tmp_path: Path) -> None:
    made = replace(image_set(per_class=1, classes=2), ids=np.array(["cat/0.jpg", "dog/0.jpg"]))
    some = lists(tmp_path, queries=["0.jpg 1"], train=["dog/0.jpg"])
    with pytest.raises(UserError, match="names 0.jpg, which may be cat/0.jpg or dog/0.jpg. Name"):
        protocol("given", made, *some)


def test_given_names_with_blanks(tmp_path: Path) -> None:
    made = image_set(per_class=1, classes=3)
    made = replace(made, ids=np.array(["a 1 b.jpg", "a b.jpg", "c.jpg"]))
    overrides = lists(tmp_path, queries=["a 1 b.jpg 0 1"], train=["a b.jpg", "c.jpg 1 1"])
    split = protocol("given", made, *overrides)
    assert split.query.tolist() == [0]
    assert split.train.tolist() == [1, 2]


def test_given_lists_that_leak_or_name_others_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = image_set(per_class=40)
    some = [f"made/{i}" for i in range(200)]
    leaks = lists(tmp_path, queries=some[:10], train=some[9:])
    with pytest.raises(UserError, match=r"protocol.train=.*names 1 of the queries.* made/9\."):
        protocol("given", made, *leaks)
    leaks = lists(tmp_path, queries=some[:10], train=some[10:], database=some[8:])
    with pytest.raises(UserError, match=r"protocol.database=.*names 2 of the queries"):
        protocol("given", made, *leaks)
    unknown = lists(tmp_path, queries=some[:10], train=[*some[10:], "x/1000", "x/1001"])
    with pytest.raises(UserError, match=r"names 192 images, of which made lacks 2, .*x/1000"):
        protocol("given", made, *unknown)
    split = protocol("given", made, *unknown, "protocol.tolerated=0.02")
    assert split.train.tolist() == list(range(10, 200))
    assert "2 of 192 images are not there" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"nowhere.txt cannot be read: No such file"):
        given(made, 0, queries="nowhere.txt", train="", database=None, tolerated=0)
