"""`deephash data`: exit codes, output and written files."""

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
from sample_images import write_class_folders
from typer.testing import CliRunner, Result

from deephash.cli.entry import app
from deephash.data.datasets.digits import digits


@pytest.fixture(autouse=True)
def change_to_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def run_script(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the console script of pyproject.toml in a new process whose streams are ASCII."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["deephash"]
    module, name = entry.split(":")
    start = f"import sys; from {module} import {name}; sys.exit({name}())"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )


def save_images(folder: Path, names: list[str], seed: int) -> None:
    coarse = torch.rand(len(names), 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = (F.interpolate(coarse, 96, mode="bicubic") * 255).clamp(0, 255).to(torch.uint8)
    for name, image in zip(names, fine, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name, quality=95)


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    """Arguments that name three lists without leaks."""
    arguments = []
    for seed, (part, n) in enumerate({"query": 15, "database": 20, "train": 5}.items()):
        names = [f"{part[0]}{i}.jpg" for i in range(n)]
        save_images(tmp_path, names, seed)
        (tmp_path / f"{part}.txt").write_text("".join(f"{name} 1 0\n" for name in names))
        arguments += [f"--{part}", f"{part}.txt"]
    return arguments


def test_the_command_is_imported_without_heavy_libraries() -> None:
    code = "import sys, deephash.cli.data; print(*{name.partition('.')[0] for name in sys.modules})"
    output = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    heavy = {"PIL", "hydra", "numpy", "omegaconf", "pydantic", "pytorch_lightning", "rich", "torch"}
    assert not heavy & set(output.split())


def test_an_audit_without_leaks_is_printed_and_written() -> None:
    result = run_command("data", "audit", "dataset=digits", "--json", "results/audit.json")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["all", "300", "1,348", "149", "1,497"] in lines
    assert ["8", "30", "130", "14", "144"] in lines
    assert (
        "no query also occurs in the training set or the database (compared by id, pixels and look)"
        in result.stdout
    )
    audit = json.loads(Path("results/audit.json").read_text())
    assert audit["name"] == "digits"
    assert audit["sizes"] == {"query": 300, "train": 1348, "validation": 149, "database": 1497}
    assert audit["leaks"] == {"id": [], "content": [], "near": []}
    assert audit["data"] == digits().checksum
    assert audit["data"] in result.stdout
    assert audit["split"] in result.stdout


def test_lists_without_leaks_exit_0(lists: list[str]) -> None:
    result = run_command("data", "audit", *lists)
    assert result.exit_code == 0, result.output
    assert ["all", "15", "5", "20"] in [line.split() for line in result.stdout.splitlines()]


def plant_leak_by_id() -> None:
    with Path("database.txt").open("a") as file:
        file.write("q2.jpg 1 0\n")


def plant_leak_of_missing_file() -> None:
    for part in ("query", "database"):
        with Path(f"{part}.txt").open("a") as file:
            file.write("gone.jpg 1 0\n")


def plant_leak_by_content() -> None:
    with Image.open("q2.jpg") as image:
        image.save("d3.png")
    Path("database.txt").write_text(Path("database.txt").read_text().replace("d3.jpg", "d3.png"))


def plant_near_duplicate() -> None:
    with Image.open("q2.jpg") as image:
        image.resize((88, 88)).save("t4.jpg", quality=60)


@pytest.mark.parametrize(
    ("kind", "plant", "description", "other", "part"),
    [
        ("id", plant_leak_by_id, "q2.jpg", "q2.jpg", "database"),
        ("id", plant_leak_of_missing_file, "gone.jpg", "gone.jpg", "database"),
        ("content", plant_leak_by_content, "q2.jpg equals d3.png", "d3.png", "database"),
        ("near", plant_near_duplicate, "q2.jpg looks like t4.jpg", "t4.jpg", "train"),
    ],
    ids=["id", "id of missing file", "content", "near"],
)
def test_each_leak_exits_1(
    kind: str, plant: Callable[[], None], description: str, other: str, part: str, lists: list[str]
) -> None:
    plant()
    result = run_command("data", "audit", *lists, "--json", "audit.json")
    assert result.exit_code == 1, result.output
    leaks = json.loads(Path("audit.json").read_text())["leaks"]
    (leak,) = leaks.pop(kind)
    query = description.split()[0]
    assert (leak["query"], leak["other"], leak["parts"]) == (query, other, [part])
    assert not any(leaks.values())
    assert f"  {description} in {part}" in result.stdout
    assert "no query" not in result.stdout


def test_near_duplicates_are_not_reported_with_no_near(lists: list[str]) -> None:
    plant_near_duplicate()
    result = run_command("data", "audit", "--no-near", *lists)
    assert result.exit_code == 0, result.output
    assert (
        "no query also occurs in the training set or the database (compared by id and pixels)\n"
        in result.stdout
    )


def test_long_lists_are_shortened_on_the_terminal_only(lists: list[str]) -> None:
    Path("database.txt").write_text(Path("query.txt").read_text())
    result = run_command("data", "audit", *lists, "--json", "audit.json")
    assert result.exit_code == 1
    assert "under their own id: 15\n" in result.stdout
    assert "  and 5 more; --json FILE writes all" in result.stdout
    assert len(json.loads(Path("audit.json").read_text())["leaks"]["id"]) == 15


def test_a_name_that_is_not_valid_text_is_printed(tmp_path: Path) -> None:
    save_images(tmp_path, ["caf\udce9 1.png", "d.png"], 0)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9 1.png\nd.png\n")
    command = ["data", "audit", "--query", "list.txt", "--database", "list.txt"]
    result = run_script(*command, "--json", "audit.json")
    assert result.returncode == 1, result.stderr
    assert b"\n  caf\\udce9 1.png in database\n" in result.stdout
    assert b"Traceback" not in result.stderr
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["leaks"]["id"][0]["query"] == "caf\udce9 1.png"


def test_ignored_files_are_reported(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos")
    (tmp_path / "photos" / "a" / "0.heic").write_text("")
    settings = ["dataset=image_folder", "dataset.path=photos", "dataset.decoded_dir=decoded"]
    result = run_command("data", "audit", *settings, "--json", "audit.json")
    assert result.exit_code == 0, result.output
    assert "ignored files, without the suffix of an image: 1\n  a/0.heic\n" in result.stdout
    assert json.loads(Path("audit.json").read_text())["ignored_files"] == ["a/0.heic"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("audit dataset=cifar11", ["dataset=cifar11", "Did you mean 'cifar10'?"]),
        ("audit method.tua=3", ["method.tua", "Did you mean 'method.tau'?"]),
        ("audit seed=-1", ["seed=-1"]),
        ("audit seed=0,1", ["seed=0,1"]),
        (
            "audit dataset=image_folder data_dir=empty",
            ["dataset.path=empty/images", "no such folder"],
        ),
        ("audit protocol.queries_per_class=500", ["protocol.queries_per_class=500", "class"]),
        ("audit --query query.txt", ["--query", "--database"]),
        ("audit --database query.txt --train query.txt", ["--query", "--database"]),
        ("audit --root folder", ["--query", "--database"]),
        ("audit seed=1 --query query.txt --database query.txt", ["without settings"]),
        ("audit --query query.txt --database none.txt", ["none.txt", "No such file"]),
        ("audit --query query.txt --database .", [". cannot be read", "directory"]),
        (
            "audit --query query.txt --database query.txt --root no",
            ["no/q0.jpg", "Set root (--root)"],
        ),
        ("audit --json query.txt/a.json", ["--json query.txt/a.json", "cannot be written"]),
        ("audit some/photos", ["dataset=image_folder dataset.path=some/photos"]),
        ("splits dataset=mnist", ["dataset=mnist: the folder", "splits FOLDER dataset=mnist"]),
        ("splits dataset.path=/some/photos", ["splits FOLDER dataset.path=/some/photos"]),
        ("splits new dataset=cifar11", ["dataset=cifar11", "Did you mean 'cifar10'?"]),
        ("splits query.txt", ["query.txt cannot be written to"]),
        ("splits new --check", ["new/split.json", "No such file"]),
    ],
)
def test_invalid_input_is_reported_in_one_sentence(
    arguments: str, expected: list[str], lists: list[str]
) -> None:
    result = run_command("data", *arguments.split())
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for words in expected:
        assert words in line


def test_a_new_process_prints_no_traceback() -> None:
    result = run_script("data", "audit", "bit=3")
    assert result.returncode == 2
    assert result.stderr == b"error: bit: there is no such setting. Did you mean 'bits'?\n"


def test_own_configurations_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "own" / "dataset"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("_target_: deephash.data.datasets.digits.digits\n")
    own = ["--config-dir", "own", "dataset=mine", "protocol=30-per-class"]
    done = run_command("data", "audit", *own)
    assert done.exit_code == 0, done.output
    done = run_command("data", "splits", "lists", "--config-dir", "own", "dataset=mien")
    assert done.exit_code == 2
    assert "Did you mean 'mine'?" in done.output
