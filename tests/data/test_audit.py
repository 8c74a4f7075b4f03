"""What an audit finds is what was planted, and nothing else."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sample_images import class_folders, own

from deephash.core.errors import UserError
from deephash.data import audit as module
from deephash.data.audit import Audit, audit, signatures
from deephash.data.datasets.cifar10 import cifar10
from deephash.data.datasets.digits import digits
from deephash.data.files.decoded_cache import decode_files
from deephash.data.files.split_lists import from_lists
from deephash.data.image_set import ImageSet
from deephash.data.protocols import per_class, test_vs_train
from deephash.data.splits import Split

test_vs_train.__test__ = False  # type: ignore[attr-defined]  # a protocol, not a test


def smooth(n: int, seed: int = 0, size: int = 64) -> torch.Tensor:
    """Different images of smooth random structure, uint8 (n, 3, size, size)."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = F.interpolate(coarse, size, mode="bicubic", align_corners=True)
    return (fine * 255).clamp(0, 255).to(torch.uint8)


def made(images: torch.Tensor) -> ImageSet:
    n = len(images)
    ids = np.array([f"made/{i}" for i in range(n)])
    return ImageSet("made", images, torch.arange(n) % 2, ids, ("a", "b"), np.zeros(n, dtype=bool))


def split(query: Sequence[int], database: Sequence[int], train: Sequence[int] = ()) -> Split:
    none = np.empty(0, dtype=np.int64)
    parts = (np.array(part, dtype=np.int64) for part in (train, query, database))
    return Split(*parts, validation=none, validation_database=none)


def names(found: Audit, kind: str) -> set[tuple[str, str]]:
    pairs = found.leaks[kind]
    told = {(pair.query, pair.other) for pair in pairs}
    assert len(told) == len(pairs)
    return told


def test_a_clean_set_has_counts_and_no_leak() -> None:
    image_set = digits()
    drawn = per_class(image_set, 0, queries=30, train=None, train_in_database=True)
    found = audit(image_set, drawn, near=True)
    assert found.leaks == {"id": [], "content": [], "near": []}
    assert not found.leaky
    assert found.sizes == {"query": 300, "train": 1497, "database": 1497}
    assert found.classes["query"] == dict.fromkeys("0123456789", 30)
    assert sum(found.classes["database"].values()) == 1497
    assert (found.data, found.split) == (image_set.checksum, drawn.checksum)
    assert found.left_out == {}
    assert found.copies_in_database == 0


def test_an_image_that_is_query_and_more_is_found_by_id_only() -> None:
    found = audit(
        made(smooth(20)), split([0, 1, 2, 3], range(3, 15), [1, *range(15, 20)]), near=True
    )
    pairs = [(p.query, p.other, p.parts, p.difference) for p in found.leaks["id"]]
    assert pairs == [
        ("made/1", "made/1", ["train"], 0.0),
        ("made/3", "made/3", ["database"], 0.0),
    ]
    assert found.leaky
    assert not found.leaks["content"]
    assert not found.leaks["near"]


def test_copies_are_found_by_content_and_not_again_as_near() -> None:
    images = smooth(30)
    images[20] = images[3]
    images[25] = images[26] = images[7]
    images[12] = images[11]  # both in the database: no leak
    found = audit(made(images), split(range(10), range(10, 26), range(24, 30)), near=True)
    assert names(found, "content") == {
        ("made/3", "made/20"),
        ("made/7", "made/25"),
        ("made/7", "made/26"),
    }
    parts = {pair.other: pair.parts for pair in found.leaks["content"]}
    assert parts["made/20"] == ["database"]
    assert parts["made/25"] == ["train", "database"]
    assert parts["made/26"] == ["train"]
    assert found.copies_in_database == 1
    assert not found.leaks["id"]
    assert not found.leaks["near"]


def test_of_many_copies_each_is_named_but_not_with_each() -> None:
    images = smooth(12)
    images[[0, 1, 2, 6, 7, 8, 9]] = images[0].clone()
    found = audit(made(images), split(range(4), range(4, 12)), near=False)
    told = names(found, "content")
    assert {query for query, _ in told} == {"made/0", "made/1", "made/2"}
    assert {other for _, other in told} == {"made/6", "made/7", "made/8", "made/9"}
    assert len(told) == 3 + 4 - 1
    assert found.copies_in_database == 3
    assert "near" not in found.leaks


def test_near_duplicates_are_found_beside_a_copy_and_with_each_query() -> None:
    images = smooth(20)
    noise = torch.randint(-2, 3, images[:4].shape, generator=torch.Generator().manual_seed(0))
    blurred = (images[:4].int() + noise).clamp(0, 255).to(torch.uint8)
    images[10] = images[0]
    images[11] = blurred[0]
    images[12:14] = blurred[1:3]
    images[1] = images[2]
    found = audit(made(images), split(range(10), range(10, 20)), near=True)
    assert names(found, "content") == {("made/0", "made/10")}
    assert names(found, "near") == {
        ("made/0", "made/11"),
        ("made/1", "made/13"),
        ("made/2", "made/13"),
    }


def test_flat_images_are_not_all_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.arange(110, 130)[:, None, None, None].expand(20, 3, 32, 32)
    noisy = 120 + torch.randint(-3, 4, flat.shape, generator=generator)
    images = torch.cat([flat, noisy]).to(torch.uint8)
    found = audit(made(images), split(range(0, 40, 2), range(1, 40, 2)), near=True)
    assert not found.leaky


@pytest.mark.parametrize("channels", [1, 3])
def test_signatures_are_of_each_image_whatever_the_chunk(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    images = smooth(20, size=32)[:, :channels]
    words, thumbnails = signatures(images)
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", 7)
    for whole, chunked in zip((words, thumbnails), signatures(images), strict=True):
        np.testing.assert_array_equal(whole, chunked)
    assert words.shape == (20, 1)
    assert thumbnails.shape == (20, 256)
    assert len(np.unique(words)) == 20
    rising = torch.arange(36, dtype=torch.uint8).mul(7).expand(1, channels, 32, 36)
    assert signatures(rising)[0].item() == 2**64 - 1
    assert signatures(rising.flip(3))[0].item() == 0


def test_signatures_of_files_that_are_decoded_when_asked_for(tmp_path: Path) -> None:
    images = smooth(5)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    folder = tmp_path / "decoded"
    files, broken = decode_files(paths, size=64, keep=False, folder=folder, workers=1)
    assert not broken
    for in_files, in_memory in zip(signatures(files), signatures(images), strict=True):
        np.testing.assert_array_equal(in_files, in_memory)


@pytest.fixture
def lists(tmp_path: Path) -> dict[str, Path]:
    """Lists of 12 queries, 30 images of the database and 10 of training; files of all but some.

    Planted: q3 is d3's file, q4 is q4.png in the database's folder, q5, q6 and q7 were saved again
    for it, also smaller and larger, q8 for the training set.
    """
    rng = np.random.default_rng(0)
    kinds = ["q"] * 12 + ["d"] * 30 + ["t"] * 10
    for i, (kind, image) in enumerate(zip(kinds, smooth(52, size=200), strict=True)):
        number = i - kinds.index(kind)
        noise = torch.from_numpy(rng.integers(-6, 7, image.shape))
        pixels = (image + noise).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{kind} {number}.jpg", quality=95)

    def again(query: int, name: str, side: int = 200, **options: int) -> None:
        with Image.open(tmp_path / f"q {query}.jpg") as image:
            image.resize((side, side)).save(tmp_path / name, **options)

    again(4, "d 4.png")
    again(5, "d 5.jpg", quality=50)
    again(6, "d 6.jpg", side=180, quality=75)
    again(7, "d 7.jpg", side=220, quality=75)
    again(8, "t 8.jpg", quality=60)
    (tmp_path / "d 10.jpg").unlink()
    (tmp_path / "d 11.jpg").write_bytes((tmp_path / "d 11.jpg").read_bytes()[:2000])
    lines = {
        "query": [f"q {i}.jpg 1 0" for i in range(12)],
        "database": [f"d {i}.jpg 0 1" for i in range(30)],
        "train": [f"t {i}.jpg 1 1" for i in range(10)],
    }
    lines["database"][3] = "q 3.jpg 1 0"
    lines["database"][4] = "d 4.png 0 1"
    lines["database"][12] = "d 12.jpg 0 0"
    lines["database"].append("d 20.jpg 1 1")
    written = {}
    for part, told in lines.items():
        written[part] = tmp_path / f"{part}.txt"
        written[part].write_text("\n".join([*told, "", ""]))
    return written


def test_lists_with_all_that_can_be_wrong(lists: dict[str, Path], tmp_path: Path) -> None:
    image_set, drawn = from_lists(lists, None, tmp_path / "decoded")
    found = audit(image_set, drawn, near=True)

    def paths(*told: tuple[str, str]) -> set[tuple[str, str]]:
        return {(str(tmp_path / one), str(tmp_path / other)) for one, other in told}

    assert names(found, "id") == paths(("q 3.jpg", "q 3.jpg"))
    assert names(found, "content") == paths(("q 4.jpg", "d 4.png"))
    assert names(found, "near") == paths(
        ("q 5.jpg", "d 5.jpg"),
        ("q 6.jpg", "d 6.jpg"),
        ("q 7.jpg", "d 7.jpg"),
        ("q 8.jpg", "t 8.jpg"),
    )
    assert found.leaks["near"][-1].parts == ["train"]
    assert all(0 < pair.difference < 4 for pair in found.leaks["near"])
    assert found.sizes == {"query": 12, "train": 10, "database": 28}
    assert found.classes["query"] == {"0": 12, "1": 0}
    assert found.classes["database"] == {"0": 1, "1": 26}
    broken = found.left_out.pop("broken")
    assert found.left_out == {
        "unlabelled": [str(tmp_path / "d 12.jpg")],
        "repeated": [
            f"{lists['database']}, line 31: {tmp_path / 'd 20.jpg'}, with other labels",
        ],
        "missing": [str(tmp_path / "d 10.jpg")],
    }
    assert len(broken) == 1
    assert broken[0].startswith(f"{tmp_path / 'd 11.jpg'}: ")


def test_a_query_that_is_left_out_is_a_leak_all_the_same(
    lists: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    for part, name in (("query", "gone"), ("query", "broken"), ("train", "gone")):
        for held in (part, "database"):
            with lists[held].open("a") as file:
                file.write(f"{name}.jpg 1 0\n")
    found = audit(*from_lists(lists, None, tmp_path / "decoded"), near=False)
    parts = {Path(pair.query).name: pair.parts for pair in found.leaks["id"]}
    assert parts == {
        "q 3.jpg": ["database"],
        "gone.jpg": ["train", "database"],
        "broken.jpg": ["database"],
    }


def test_other_labels_than_in_an_earlier_list_are_told(
    lists: dict[str, Path], tmp_path: Path
) -> None:
    lists["train"].write_text("d 1.jpg 1 0\nd 2.jpg 0 1\n")
    found = audit(*from_lists(lists, None, tmp_path / "decoded"), near=False)
    assert found.left_out["contradictory"] == [
        f"{lists['train']}, line 1: {tmp_path / 'd 1.jpg'}, with other labels than in an earlier "
        "list"
    ]
    assert found.classes["train"] == {"0": 0, "1": 2}


@pytest.mark.parametrize("words", [("test", "train"), ("train", "test", "train")])
def test_an_image_that_a_list_has_as_test_and_as_train_is_a_leak(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    class_folders(tmp_path, per_class=3)
    rows = [f"a/0.jpg,a,{word}" for word in words]
    rows += ["a/1.jpg,a,train", "a/2.jpg,a,test", "b/0.jpg,b,test", "b/1.jpg,b,train"]
    (tmp_path / "list.csv").write_text("\n".join(["file,label,split", *rows]))
    image_set = own(tmp_path / "list.csv", tolerated=0.5)
    assert image_set.is_test.tolist() == [True, False, True, True, False]
    found = audit(image_set, test_vs_train(image_set, 0), near=False)
    assert set(found.left_out["repeated"]) == {"a/0.jpg, as test and as train"}
    (pair,) = found.leaks["id"]
    assert (pair.query, pair.parts) == ("a/0.jpg", ["train", "database"])
    assert found.leaky


def test_lists_without_labels_and_with_paths_from_a_root(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    strange = os.fsdecode(b"caf\xe9 1.png")
    for name, image in zip((strange, "b.png", "c.png"), smooth(3), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / name)
    (tmp_path / "q.txt").write_bytes(b"caf\xe9 1.png\n")
    (tmp_path / "d.txt").write_text("b.png\n.\\c.png")
    lists = {"query": tmp_path / "q.txt", "database": tmp_path / "d.txt"}
    image_set, drawn = from_lists(lists, tmp_path / "images", tmp_path / "decoded")
    assert image_set.ids[drawn.query].tolist() == [str(tmp_path / "images" / strange)]
    found = audit(image_set, drawn, near=True)
    assert found.sizes == {"query": 1, "database": 2}
    assert found.classes == {"query": {}, "database": {}}
    assert not found.left_out
    assert not found.leaky


def test_lists_that_do_not_fit_are_refused(tmp_path: Path, lists: dict[str, Path]) -> None:
    lists["train"].write_text("t 1.jpg 0 1 1\n")
    with pytest.raises(UserError, match=r"2 at .*query.txt, line 1, 3 at .*train.txt, line 1"):
        from_lists(lists, None, tmp_path / "decoded")
    lists["train"].write_text("\nt_1.jpg 0 1\n")
    with pytest.raises(UserError, match=r"train.txt: of the 1 images .* for example .*t_1.jpg"):
        from_lists(lists, None, tmp_path / "decoded")
    with pytest.raises(UserError, match=r"nowhere.txt cannot be read: No such file"):
        from_lists({**lists, "query": tmp_path / "nowhere.txt"}, None, tmp_path / "decoded")


@pytest.mark.realdata
def test_cifar10_has_one_near_duplicate_of_those_known(data_dir: Path) -> None:
    image_set = cifar10(str(data_dir))
    found = audit(image_set, test_vs_train(image_set, 0), near=True)
    # In ciFAIR's list of CIFAR-10's duplicates (Barz & Denzler 2020), judged by eye.
    assert names(found, "near") == {("test/8299", "train/35398")}
    assert not found.leaks["id"]
    assert not found.leaks["content"]
