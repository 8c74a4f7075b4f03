from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose_config

from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.data.image_set import ImageSet
from deephash.data.protocols import given, per_class, stratified, test_vs_train
from deephash.data.splits import Split, drop_query_duplicates, hold_out_validation, strata
from deephash.experiment.settings import validate_settings

test_vs_train.__test__ = False  # type: ignore[attr-defined]  # a protocol, not a test


def make_image_set(per_class: int = 700, classes: int = 10, test: int = 100) -> ImageSet:
    n = per_class * classes
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="toy",
        images=torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8),
        labels=torch.arange(n) % classes,
        ids=np.array([f"toy/{i}" for i in range(n)]),
        classes=tuple(f"class {c}" for c in range(classes)),
        is_test=np.arange(n) < test,
    )


def count_classes(image_set: ImageSet, indices: np.ndarray) -> list[int]:
    return np.bincount(image_set.labels.numpy()[indices], minlength=len(image_set.classes)).tolist()


def draw_split(name: str, image_set: ImageSet, *overrides: str, seed: int = 0) -> Split:
    settings = validate_settings(compose_config(f"protocol={name}", *overrides))
    return build("protocol", settings.protocol.node(), image_set, seed)


def test_test_vs_train() -> None:
    image_set = make_image_set()
    split = draw_split("test-vs-train", image_set)
    assert split.query.tolist() == list(range(100))
    assert split.train.tolist() == split.database.tolist() == list(range(100, 7000))


@pytest.mark.parametrize(("name", "searched"), [("1k-59k", 600), ("1k-54k", 100)])
def test_sampled_protocols(name: str, searched: int) -> None:
    image_set = make_image_set()
    split = draw_split(name, image_set)
    assert count_classes(image_set, split.query) == [100] * 10
    assert count_classes(image_set, split.train) == [500] * 10
    assert count_classes(image_set, split.database) == [searched] * 10
    assert bool(np.isin(split.train, split.database).all()) == (name == "1k-59k")


def test_validation_is_stratified_and_stays_in_the_database() -> None:
    image_set = make_image_set()
    before = test_vs_train(image_set, seed=0)
    split = hold_out_validation(
        before, image_set.labels.numpy(), fraction=0.1, database_size=500, seed=0
    )
    assert count_classes(image_set, split.validation) == [69] * 10
    assert len(split.validation_database) == 500
    assert np.union1d(split.train, split.validation).tolist() == before.train.tolist()
    assert split.database.tolist() == before.database.tolist()


@pytest.mark.parametrize(
    "override", ["protocol.queries_per_class=201", "protocol.train_per_class=601"]
)
def test_more_images_than_a_class_has_are_refused(override: str) -> None:
    image_set = make_image_set()
    with pytest.raises(UserError, match=r"need 701 images of class 'class 0', but toy has 700"):
        draw_split("1k-59k", image_set, override)


def test_a_set_without_test_images_is_refused() -> None:
    with pytest.raises(UserError, match="no official test images"):
        draw_split("test-vs-train", make_image_set(test=0))


def test_an_empty_database_is_refused() -> None:
    with pytest.raises(UserError, match="leave no image for the database"):
        per_class(
            make_image_set(), 0, queries_per_class=30, train_per_class=None, train_in_database=False
        )


def test_duplicates_of_queries_are_dropped_from_database_and_training() -> None:
    image_set = make_image_set()
    split = test_vs_train(image_set, seed=0)
    assert drop_query_duplicates(image_set, split).checksum == split.checksum
    duplicates = split.database[40:43]
    image_set = make_image_set()
    image_set.images[split.query[:3]] = image_set.images[duplicates]
    reduced = drop_query_duplicates(image_set, split)
    assert reduced.query.tolist() == split.query.tolist()
    assert reduced.database.tolist() == np.setdiff1d(split.database, duplicates).tolist()
    assert reduced.train.tolist() == np.setdiff1d(split.train, duplicates).tolist()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.array([3, 1, 2]), "query is not in increasing order.*np.unique"),
        (np.array([1, 1, 2]), "query is not in increasing order, from 0 and without repetition"),
        (np.array([-1, 2]), "query is not in increasing order, from 0"),
        (np.array([True, False, True]), "query has shape .3,. and type bool.*np.flatnonzero"),
        (np.array([1.0, 2.0]), "type float64"),
        (np.array([[1, 2]]), r"shape \(1, 2\)"),
        (["a"], "type <U1"),
    ],
)
def test_a_split_of_other_arrays_is_refused(query: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=f"Split: .*{message}"):
        Split(np.array([0]), query, np.array([0]))


def test_checksum_of_a_split_depends_on_every_part() -> None:
    image_set = make_image_set()
    split = hold_out_validation(
        test_vs_train(image_set, seed=0),
        image_set.labels.numpy(),
        fraction=0.1,
        database_size=500,
        seed=0,
    )
    sums = {split.checksum}
    for name, indices in split.arrays().items():
        sums.add(type(split)(**{**split.arrays(), name: indices[1:]}).checksum)
    assert len(sums) == 6


def make_multi_label_set(n: int = 3000, classes: int = 5) -> ImageSet:
    """Class c has probability 0.5 / (c + 1); an image without a class gets class 0."""
    image_set = make_image_set(per_class=n // classes, classes=classes)
    probabilities = 0.5 / np.arange(1, classes + 1)
    labels = (np.random.default_rng(0).random((n, classes)) < probabilities).astype(np.uint8)
    labels[~labels.any(axis=1), 0] = 1
    return replace(image_set, labels=torch.from_numpy(labels))


def test_each_class_of_multi_label_images_draws_its_own() -> None:
    image_set = make_multi_label_set()
    split = draw_split(
        "1k-59k", image_set, "protocol.queries_per_class=20", "protocol.train_per_class=50"
    )
    assert len(split.query) == 20 * 5
    assert len(split.train) == 50 * 5
    assert not np.intersect1d(split.query, split.train).size
    assert split.database.tolist() == np.setdiff1d(np.arange(3000), split.query).tolist()
    labels = image_set.labels.numpy()
    assert (labels[split.query].sum(axis=0) >= 20).all()
    assert (labels[split.train].sum(axis=0) >= 50).all()


def test_strata_are_classes_or_the_rarest_of_several() -> None:
    assert strata(np.array([3, 1, 1])).tolist() == [3, 1, 1]
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1], [0, 1, 0]])
    assert strata(labels).tolist() == [0, 1, 2, 2, 1]  # the classes have 4, 3 and 2 images


def test_validation_of_multi_label_images_has_the_fraction_of_each_class() -> None:
    image_set = make_multi_label_set()
    before = draw_split("hashnet", image_set, "protocol.queries=300", "protocol.train=2000")
    labels = image_set.labels.numpy()
    split = hold_out_validation(before, labels, fraction=0.1, database_size=500, seed=0)
    fractions = labels[split.validation].sum(axis=0) / labels[before.train].sum(axis=0)
    np.testing.assert_allclose(fractions, 0.1, atol=0.04)
    assert len(split.validation) == pytest.approx(200, abs=5)


def test_hashnet_draws_from_all_images() -> None:
    image_set = make_image_set()
    split = draw_split("hashnet", image_set, "protocol.queries=500", "protocol.train=1000")
    assert (len(split.query), len(split.train), len(split.database)) == (500, 1000, 6500)
    assert np.isin(split.train, split.database).all()
    assert not np.intersect1d(split.query, split.database).size
    with pytest.raises(UserError, match=r"queries=5000 and protocol.train=10000 .* 7000 images"):
        draw_split("hashnet", image_set)


def test_a_tenth_of_each_class_are_queries() -> None:
    image_set = make_image_set(per_class=70)
    split = draw_split("10-percent", image_set)
    assert count_classes(image_set, split.query) == [7] * 10
    assert split.train.tolist() == split.database.tolist()
    assert len(split.database) + len(split.query) == len(image_set)


@pytest.mark.parametrize("name", ["10-percent", "30-per-class", "1k-59k"])
@pytest.mark.parametrize("test", [0, 100])
def test_a_warning_says_that_the_official_split_is_not_used(
    name: str, test: int, caplog: pytest.LogCaptureFixture
) -> None:
    draw_split(name, make_image_set(test=test))
    message = (
        "toy: the official split (100 test images) is not used; protocol=test-vs-train uses it"
    )
    assert caplog.messages == [message] * bool(test)


def test_a_class_of_one_image_has_no_query() -> None:
    labels = torch.tensor([0] * 20 + [1])
    image_set = replace(make_image_set(per_class=3, classes=7), labels=labels, classes=("a", "b"))
    assert stratified(image_set, 0, query_fraction=0.1).query.max() < 20


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_fraction_that_leaves_nothing_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=rf"protocol.query_fraction={fraction} makes"):
        stratified(make_image_set(per_class=70), 0, query_fraction=fraction)


def write_lists(folder: Path, **names: list[str]) -> list[str]:
    for part, lines in names.items():
        (folder / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines))
    return [f"protocol.{part}={folder / part}.txt" for part in names]


def test_given_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_set = make_image_set(per_class=4)
    overrides = write_lists(
        tmp_path,
        queries=["toy/3 1 0 0", "toy/1\t0 0 1", ""],
        train=["C:\\photos\\toy\\7", "5"],
        database=["toy/5", "toy/7", "toy/9", "toy/5"],
    )
    split = draw_split("given", image_set, *overrides)
    assert split.query.tolist() == [1, 3]
    assert split.train.tolist() == [5, 7]
    assert split.database.tolist() == [5, 7, 9]
    assert caplog.messages == [
        f"{tmp_path}/database.txt: 1 of 4 lines repeat an image",
        "toy: classes with queries, but no image in the database (2): class 1, class 3",
        "toy: classes with images in the database, but no query (3): class 5, class 7, class 9",
    ]
    split = draw_split("given", image_set, *overrides[:2])
    assert split.database.tolist() == [i for i in range(40) if i not in (1, 3)]


@pytest.mark.parametrize(
    ("ids", "line", "expected"),
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
def test_a_name_matches_an_id_by_whole_folders(
    ids: list[str], line: str, expected: str | None, tmp_path: Path
) -> None:
    image_set = replace(make_image_set(per_class=1, classes=3), ids=np.array([*ids, "last"]))
    query, train = tmp_path / "query.txt", tmp_path / "train.txt"
    query.write_text(f"{line}\n", encoding="utf-8-sig")  # as spreadsheets begin a file
    train.write_text("last\n")

    def find_queries() -> list[int]:
        lists = {"queries": str(query), "train": str(train), "database": None}
        return given(image_set, 0, **lists, max_missing_fraction=0).query.tolist()

    if expected is None:
        with pytest.raises(UserError, match="names 1 images, 1 of which are not in toy"):
            find_queries()
    else:
        assert find_queries() == [ids.index(expected)]


def test_an_ambiguous_name_is_refused(tmp_path: Path) -> None:
    image_set = replace(
        make_image_set(per_class=1, classes=2), ids=np.array(["cat/0.jpg", "dog/0.jpg"])
    )
    overrides = write_lists(tmp_path, queries=["0.jpg 1"], train=["dog/0.jpg"])
    with pytest.raises(
        UserError, match=r"queries.txt, line 1: 0.jpg may be cat/0.jpg or dog/0.jpg\. Write"
    ):
        draw_split("given", image_set, *overrides)


def test_given_names_may_contain_blanks(tmp_path: Path) -> None:
    image_set = make_image_set(per_class=1, classes=3)
    image_set = replace(image_set, ids=np.array(["a 1 b.jpg", "a b.jpg", "c.jpg"]))
    overrides = write_lists(tmp_path, queries=["a 1 b.jpg 0 1"], train=["a b.jpg", "c.jpg 1 1"])
    split = draw_split("given", image_set, *overrides)
    assert split.query.tolist() == [0]
    assert split.train.tolist() == [1, 2]


def test_given_lists_that_leak_or_name_unknown_images_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image_set = make_image_set(per_class=40)
    ids = [f"toy/{i}" for i in range(200)]
    leaks = write_lists(tmp_path, queries=ids[:10], train=ids[9:])
    with pytest.raises(UserError, match=r"protocol.train=.*names 1 of the queries.* toy/9\."):
        draw_split("given", image_set, *leaks)
    leaks = write_lists(tmp_path, queries=ids[:10], train=ids[10:], database=ids[8:])
    with pytest.raises(UserError, match=r"protocol.database=.*names 2 of the queries"):
        draw_split("given", image_set, *leaks)
    unknown = write_lists(tmp_path, queries=ids[:10], train=[*ids[10:], "x/1000", "x/1001"])
    with pytest.raises(UserError, match=r"names 192 images, 2 of which are not in toy; .*x/1000"):
        draw_split("given", image_set, *unknown)
    split = draw_split("given", image_set, *unknown, "protocol.max_missing_fraction=0.02")
    assert split.train.tolist() == list(range(10, 200))
    assert f"{tmp_path}/train.txt: 2 of 192 images are not in the data set" in caplog.messages
    lists = {"queries": "nowhere.txt", "train": "", "database": None}
    with pytest.raises(UserError, match=r"nowhere.txt cannot be read: No such file"):
        given(image_set, 0, **lists, max_missing_fraction=0)


def test_lists_in_another_spelling_are_matched_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image_set = make_image_set(per_class=4)
    overrides = write_lists(
        tmp_path, queries=["TOY/1", "toy/2", "Toy/3"], train=["toy/4", "toy/5.jpg"]
    )
    split = draw_split("given", image_set, *overrides)
    assert split.query.tolist() == [1, 2, 3]
    assert split.train.tolist() == [4, 5]
    assert caplog.messages[:2] == [
        f"{tmp_path}/queries.txt: names match in spite of letter case (2); for example TOY/1 is "
        "toy/1",
        f"{tmp_path}/train.txt: names match in spite of file suffix (1); for example toy/5.jpg is "
        "toy/5",
    ]
    leak = write_lists(tmp_path, queries=["toy/1"], train=["TOY/1", "toy/2"])
    with pytest.raises(UserError, match="names 1 of the queries, for example toy/1"):
        draw_split("given", image_set, *leak)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("17 toy/1", "Value 2 of the line, toy/1, is an image"),
        ("toy/1,0,1", "Value 1 of the line, toy/1, is an image"),
        ("boy/1", "toy/1 is there, in another folder"),
        ("toy/\ufffd", "Letters were lost"),
        ("nothing", "The names there are like toy/0"),
    ],
)
def test_an_unknown_image_has_a_hint(line: str, hint: str, tmp_path: Path) -> None:
    overrides = write_lists(tmp_path, queries=[line], train=["toy/2"])
    with pytest.raises(UserError, match=rf"1 of which are not in toy; .*{hint}"):
        draw_split("given", make_image_set(per_class=4), *overrides)


def test_images_that_the_data_set_left_out_are_named_as_such(tmp_path: Path) -> None:
    left_out = {"broken": ["/data/toy/90.jpg: truncated"], "unlabelled": ["toy/91.jpg"]}
    image_set = replace(make_image_set(per_class=4), report={"left_out": left_out})
    names = ["toy/90.jpg", "toy/91.jpg", "toy/92.jpg"]
    overrides = write_lists(tmp_path, queries=["toy/1"], train=["toy/2", *names])
    with pytest.raises(
        UserError, match="3 of which are not .* left them out: 1 broken, 1 unlabelled"
    ):
        draw_split("given", image_set, *overrides)
