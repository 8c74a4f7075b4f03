"""The commands of `deephash`: their exit codes, what they print and what they write."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from PIL import Image
from sample_images import class_folders
from typer.testing import CliRunner, Result

from deephash.cli import app
from deephash.data.datasets.digits import digits
from deephash.data.protocols import given


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def deephash(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def script(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The console script, as pyproject.toml has it, in a process of its own; it may print ASCII."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["deephash"]
    module, name = entry.split(":")
    start = f"import sys; from {module} import {name}; sys.exit({name}())"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )


def save(folder: Path, names: list[str], seed: int) -> None:
    coarse = torch.rand(len(names), 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = (F.interpolate(coarse, 96, mode="bicubic") * 255).clamp(0, 255).to(torch.uint8)
    for name, image in zip(names, fine, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name, quality=95)


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    """Arguments that name three lists, clean ones."""
    arguments = []
    for seed, (part, n) in enumerate({"query": 15, "database": 20, "train": 5}.items()):
        names = [f"{part[0]}{i}.jpg" for i in range(n)]
        save(tmp_path, names, seed)
        (tmp_path / f"{part}.txt").write_text("".join(f"{name} 1 0\n" for name in names))
        arguments += [f"--{part}", f"{part}.txt"]
    return arguments


def test_a_clean_set_is_told_and_written() -> None:
    done = deephash("data", "audit", "dataset=digits", "--json", "found/audit.json")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["all", "300", "1,348", "149", "1,497"] in lines
    assert ["8", "30", "130", "14", "144"] in lines
    assert "no query is trained on or searched, by id, pixels or look" in done.stdout
    found = json.loads(Path("found/audit.json").read_text())
    assert found["name"] == "digits"
    assert found["sizes"] == {"query": 300, "train": 1348, "validation": 149, "database": 1497}
    assert found["leaks"] == {"id": [], "content": [], "near": []}
    assert found["data"] == digits().checksum
    assert found["data"] in done.stdout
    assert found["split"] in done.stdout


def test_clean_lists_exit_0(lists: list[str]) -> None:
    done = deephash("data", "audit", *lists)
    assert done.exit_code == 0, done.output
    assert ["all", "15", "5", "20"] in [line.split() for line in done.stdout.splitlines()]


def leak_by_id() -> None:
    with Path("database.txt").open("a") as file:
        file.write("q2.jpg 1 0\n")


def leak_of_a_missing_file() -> None:
    for part in ("query", "database"):
        with Path(f"{part}.txt").open("a") as file:
            file.write("gone.jpg 1 0\n")


def leak_by_content() -> None:
    with Image.open("q2.jpg") as image:
        image.save("d3.png")
    Path("database.txt").write_text(Path("database.txt").read_text().replace("d3.jpg", "d3.png"))


def leak_by_look() -> None:
    with Image.open("q2.jpg") as image:
        image.resize((88, 88)).save("t4.jpg", quality=60)


@pytest.mark.parametrize(
    ("kind", "plant", "told", "other", "part"),
    [
        ("id", leak_by_id, "q2.jpg", "q2.jpg", "database"),
        ("id", leak_of_a_missing_file, "gone.jpg", "gone.jpg", "database"),
        ("content", leak_by_content, "q2.jpg is d3.png", "d3.png", "database"),
        ("near", leak_by_look, "q2.jpg looks like t4.jpg", "t4.jpg", "train"),
    ],
    ids=["id", "id of no file", "content", "near"],
)
def test_each_leak_exits_1(
    kind: str, plant: Callable[[], None], told: str, other: str, part: str, lists: list[str]
) -> None:
    plant()
    done = deephash("data", "audit", *lists, "--json", "audit.json")
    assert done.exit_code == 1, done.output
    leaks = json.loads(Path("audit.json").read_text())["leaks"]
    (pair,) = leaks.pop(kind)
    assert (pair["query"], pair["other"], pair["parts"]) == (told.split()[0], other, [part])
    assert all(not pairs for pairs in leaks.values())
    assert f"  {told} in {part}" in done.stdout
    assert "no query" not in done.stdout


def test_without_near_no_leak_is_seen_in_looks(lists: list[str]) -> None:
    leak_by_look()
    done = deephash("data", "audit", "--no-near", *lists)
    assert done.exit_code == 0, done.output
    assert "no query is trained on or searched, by id or pixels\n" in done.stdout


def test_many_lines_are_cut_on_the_terminal_only(lists: list[str]) -> None:
    Path("database.txt").write_text(Path("query.txt").read_text())
    done = deephash("data", "audit", *lists, "--json", "audit.json")
    assert done.exit_code == 1
    assert "under their own id: 15\n" in done.stdout
    assert "  and 5 more; --json FILE lists all" in done.stdout
    assert len(json.loads(Path("audit.json").read_text())["leaks"]["id"]) == 15


def test_a_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    save(tmp_path, ["caf\udce9 1.png", "d.png"], 0)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9 1.png\nd.png\n")
    command = ["data", "audit", "--query", "list.txt", "--database", "list.txt"]
    done = script(*command, "--json", "audit.json")
    assert done.returncode == 1, done.stderr
    assert b"\n  caf\\udce9 1.png in database\n" in done.stdout
    assert b"Traceback" not in done.stderr
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["leaks"]["id"][0]["query"] == "caf\udce9 1.png"


def test_files_that_are_passed_over_by_their_names_are_told(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos")
    (tmp_path / "photos" / "a" / "0.heic").write_text("")
    settings = ["dataset=images", "dataset.path=photos", "dataset.decoded_dir=decoded"]
    done = deephash("data", "audit", *settings, "--json", "audit.json")
    assert done.exit_code == 0, done.output
    assert "no images by their names: 1\n  a/0.heic\n" in done.stdout
    assert json.loads(Path("audit.json").read_text())["no_images"] == ["a/0.heic"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("audit dataset=cifar11", ["dataset=cifar11", "Did you mean 'cifar10'?"]),
        ("audit method.tua=3", ["method.tua", "Did you mean 'method.tau'?"]),
        ("audit seed=-1", ["seed=-1"]),
        ("audit seed=0,1", ["seed=0,1"]),
        ("audit dataset=images data_dir=empty", ["dataset.path=empty/images", "no such folder"]),
        ("audit protocol.queries=500", ["protocol.queries=500", "class"]),
        ("audit --query query.txt", ["--query", "--database"]),
        ("audit --database query.txt --train query.txt", ["--query", "--database"]),
        ("audit --root folder", ["--query", "--database"]),
        ("audit seed=1 --query query.txt --database query.txt", ["without settings"]),
        ("audit --query query.txt --database none.txt", ["none.txt", "No such file"]),
        ("audit --query query.txt --database .", [". cannot be read", "directory"]),
        ("audit --query query.txt --database query.txt --root no", ["no/q0.jpg", "begin"]),
        ("audit --json query.txt/a.json", ["--json query.txt/a.json", "cannot be written"]),
        ("audit some/photos", ["dataset=images dataset.path=some/photos"]),
        ("splits dataset=mnist", ["dataset=mnist: first", "splits FOLDER dataset=mnist"]),
        ("splits dataset.path=/some/photos", ["splits FOLDER dataset.path=/some/photos"]),
        ("splits new dataset=cifar11", ["dataset=cifar11", "Did you mean 'cifar10'?"]),
        ("splits query.txt", ["query.txt cannot be written to"]),
        ("splits new --check", ["new/split.json", "No such file"]),
    ],
)
def test_wrong_input_is_told_in_one_sentence(
    arguments: str, told: list[str], lists: list[str]
) -> None:
    done = deephash("data", *arguments.split())
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for words in told:
        assert words in line


def test_no_stack_trace_in_a_process_of_its_own() -> None:
    done = script("data", "audit", "bit=3")
    assert done.returncode == 2
    assert done.stderr == b"error: bit: there is no such setting. Did you mean 'bits'?\n"


def test_splits_are_written_checked_and_read_as_given() -> None:
    overrides = ["protocol=1k-54k", "protocol.queries=20", "protocol.train=50", "seed=3"]
    done = deephash("data", "splits", "lists", *overrides)
    assert done.exit_code == 0, done.output
    assert done.stdout == "lists: 200 query, 500 train, 1,097 database\n"
    image_set = digits()
    paths = {part: f"lists/{part}.txt" for part in ("train", "database")}
    split = given(image_set, 0, queries="lists/query.txt", **paths, tolerated=0.0)
    said = json.loads(Path("lists/split.json").read_text())
    assert said["split"] == split.checksum
    assert said["data"] == image_set.checksum
    assert (said["dataset"], said["seed"], said["protocol"]["train"]) == ("digits", 3, 50)
    assert (said["query"], said["train"], said["database"]) == (200, 500, 1097)

    done = deephash("data", "splits", "lists", "--check")
    assert done.exit_code == 0, done.output
    assert "fits digits" in done.stdout
    settings = ["protocol=given", "protocol.queries=lists/query.txt"]
    settings += [f"protocol.{part}={path}" for part, path in paths.items()]
    again = deephash("data", "splits", "again", *settings)
    assert again.exit_code == 0, again.output
    for part in ("query", "train", "database"):
        assert Path(f"again/{part}.txt").read_bytes() == Path(f"lists/{part}.txt").read_bytes()


def test_a_split_is_not_written_over() -> None:
    Path("lists").mkdir()
    Path("lists/train.txt").write_text("mine")
    done = deephash("data", "splits", "lists")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: lists already holds train.txt. ")
    assert Path("lists/train.txt").read_text() == "mine"
    assert len(list(Path("lists").iterdir())) == 1


def test_what_was_tampered_with_is_named() -> None:
    assert deephash("data", "splits", "lists").exit_code == 0
    queries, database = Path("lists/query.txt"), Path("lists/database.txt")
    kept = database.read_text()
    moved, _, rest = kept.partition("\n")
    before = queries.read_text()

    def wrong() -> list[str]:
        done = deephash("data", "splits", "lists", "--check")
        assert done.exit_code == 1, done.output
        return done.stdout.splitlines()

    database.write_text(rest)
    queries.write_text(f"{before}{moved}\n")
    told = wrong()
    assert told[0] == f"train.txt names 1 of the queries, for example {moved}"
    assert told[1].startswith("split is ")
    assert told[2:] == [
        "query is 301, and split.json says 300",
        "database is 1496, and split.json says 1497",
    ]

    queries.write_text(before)
    database.write_text(kept.replace(f"{moved}\n", "digits/9999\n"))
    told = wrong()
    assert told[0] == "database.txt names 1 images that digits lacks, for example digits/9999"

    database.write_text(kept)
    assert deephash("data", "splits", "lists", "--check").exit_code == 0
    facts = Path("lists/split.json")
    facts.write_text(facts.read_text().replace(digits().checksum, "0" * 64))
    (told,) = wrong()
    assert told == f"data is {digits().checksum}, and split.json says {'0' * 64}"
    facts.write_text("[]")
    assert deephash("data", "splits", "lists", "--check").exit_code == 2
