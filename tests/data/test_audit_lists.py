"""An audit of lists finds exactly the leaks and defects that the tests plant."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import sample_smooth_images, write_image

from deephash.core.errors import UserError
from deephash.data.audit import audit
from deephash.data.audit_lists import load_audit_lists


@pytest.fixture
def lists(tmp_path: Path) -> dict[str, Path]:
    """Lists of 12 queries, 30 database images and 10 training images, with planted defects.

    q3 is in the database under its own path. d4 has the pixels of q4; d5, d6 and d7 are q5, q6 and
    q7 compressed again, d6 also smaller and d7 larger; t8 is q8 compressed again. d10 is missing,
    d11 broken, d12 unlabelled, d20 listed twice.
    """
    rng = np.random.default_rng(0)
    kinds = ["q"] * 12 + ["d"] * 30 + ["t"] * 10
    for i, (kind, image) in enumerate(zip(kinds, sample_smooth_images(52, size=200), strict=True)):
        number = i - kinds.index(kind)
        noise = torch.from_numpy(rng.integers(-6, 7, image.shape))
        pixels = (image + noise).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{kind} {number}.jpg", quality=95)

    def save_copy(query: int, name: str, side: int = 200, **options: int) -> None:
        with Image.open(tmp_path / f"q {query}.jpg") as image:
            image.resize((side, side)).save(tmp_path / name, **options)

    save_copy(4, "d 4.png")
    save_copy(5, "d 5.jpg", quality=50)
    save_copy(6, "d 6.jpg", side=180, quality=75)
    save_copy(7, "d 7.jpg", side=220, quality=75)
    save_copy(8, "t 8.jpg", quality=60)
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
    paths = {}
    for part, part_lines in lines.items():
        paths[part] = tmp_path / f"{part}.txt"
        paths[part].write_text("\n".join([*part_lines, "", ""]))
    return paths


def test_lists_with_every_defect(lists: dict[str, Path], tmp_path: Path) -> None:
    image_set, split = load_audit_lists(lists, None, tmp_path / "decoded")
    result = audit(image_set, split, near_duplicates=True)

    def leaks(kind: str) -> list[tuple[str, str]]:
        pairs = [(Path(leak.query), Path(leak.other)) for leak in result.leaks[kind]]
        assert {path.parent for pair in pairs for path in pair} <= {tmp_path}
        return sorted((query.name, other.name) for query, other in pairs)

    assert leaks("id") == [("q 3.jpg", "q 3.jpg")]
    assert leaks("content") == [("q 4.jpg", "d 4.png")]
    assert leaks("near") == [
        ("q 5.jpg", "d 5.jpg"),
        ("q 6.jpg", "d 6.jpg"),
        ("q 7.jpg", "d 7.jpg"),
        ("q 8.jpg", "t 8.jpg"),
    ]
    assert result.leaks["near"][-1].parts == ["train"]
    assert all(0 < leak.difference < 4 for leak in result.leaks["near"])
    assert result.sizes == {"query": 12, "train": 10, "database": 28}
    assert result.classes["query"] == {"0": 12, "1": 0}
    assert result.classes["database"] == {"0": 1, "1": 26}
    broken = result.left_out.pop("broken")
    assert result.left_out == {
        "unlabelled": [str(tmp_path / "d 12.jpg")],
        "repeated": [
            f"{lists['database']}, line 31: {tmp_path / 'd 20.jpg'}, with other labels",
        ],
        "missing": [str(tmp_path / "d 10.jpg")],
    }
    assert len(broken) == 1
    assert broken[0].startswith(f"{tmp_path / 'd 11.jpg'}: ")


def test_an_unusable_query_in_another_part_is_a_leak(
    lists: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    for part, name in (("query", "gone"), ("query", "broken"), ("train", "gone")):
        for list_part in (part, "database"):
            with lists[list_part].open("a") as file:
                file.write(f"{name}.jpg 1 0\n")
    result = audit(*load_audit_lists(lists, None, tmp_path / "decoded"), near_duplicates=False)
    parts = {Path(leak.query).name: leak.parts for leak in result.leaks["id"]}
    assert parts == {
        "q 3.jpg": ["database"],
        "gone.jpg": ["train", "database"],
        "broken.jpg": ["database"],
    }


def test_labels_that_contradict_an_earlier_list_are_reported(
    lists: dict[str, Path], tmp_path: Path
) -> None:
    lists["train"].write_text("d 1.jpg 1 0\nd 2.jpg 0 1\n")
    result = audit(*load_audit_lists(lists, None, tmp_path / "decoded"), near_duplicates=False)
    assert result.left_out["contradictory"] == [
        f"{lists['train']}, line 1: {tmp_path / 'd 1.jpg'}, with other labels than in an earlier "
        "list"
    ]
    assert result.classes["train"] == {"0": 0, "1": 2}


def test_lists_without_labels_and_with_a_root(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    undecodable = os.fsdecode(b"caf\xe9 1.png")
    for name, image in zip((undecodable, "b.png", "c.png"), sample_smooth_images(3), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / name)
    (tmp_path / "q.txt").write_bytes(b"caf\xe9 1.png\n")
    (tmp_path / "d.txt").write_text("b.png\n.\\c.png")
    lists = {"query": tmp_path / "q.txt", "database": tmp_path / "d.txt"}
    image_set, split = load_audit_lists(lists, tmp_path / "images", tmp_path / "decoded")
    assert image_set.ids[split.query].tolist() == [str(tmp_path / "images" / undecodable)]
    result = audit(image_set, split, near_duplicates=True)
    assert result.sizes == {"query": 1, "database": 2}
    assert result.classes == {"query": {}, "database": {}}
    assert not result.left_out
    assert not result.has_leaks


def test_a_single_column_of_labels_tells_two_classes_apart(tmp_path: Path) -> None:
    for part, rows in (("query", (0, 1)), ("database", (2, 3))):
        for row in rows:
            write_image(tmp_path / f"{row}.jpg", seed=row)
        (tmp_path / f"{part}.txt").write_text("".join(f"{row}.jpg {row % 2}\n" for row in rows))
    lists = {part: tmp_path / f"{part}.txt" for part in ("query", "database")}
    image_set, _ = load_audit_lists(lists, None, tmp_path / "decoded")
    assert image_set.labels.tolist() == [0, 1, 0, 1]


def test_lists_that_do_not_fit_are_refused(tmp_path: Path, lists: dict[str, Path]) -> None:
    lists["train"].write_text("t 1.jpg 0 1 1\n")
    with pytest.raises(UserError, match=r"2 at .*query.txt, line 1, 3 at .*train.txt, line 1"):
        load_audit_lists(lists, None, tmp_path / "decoded")
    lists["train"].write_text("\nt_1.jpg 0 1\n")
    with pytest.raises(
        UserError, match=r"train.txt: none of the 1 images .* for example .*t_1.jpg"
    ):
        load_audit_lists(lists, None, tmp_path / "decoded")
    with pytest.raises(UserError, match=r"nowhere.txt cannot be read: No such file"):
        load_audit_lists({**lists, "query": tmp_path / "nowhere.txt"}, None, tmp_path / "decoded")
