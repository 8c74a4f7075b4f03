"""`deephash data splits`: what it writes, and what its check finds."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deephash.cli.entry import app
from deephash.data.datasets.digits import digits
from deephash.data.protocols import given


@pytest.fixture(autouse=True)
def change_to_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_splits_are_written_checked_and_read_by_protocol_given() -> None:
    overrides = [
        "protocol=1k-54k",
        "protocol.queries_per_class=20",
        "protocol.train_per_class=50",
        "seed=3",
    ]
    result = run_command("data", "splits", "lists", *overrides)
    assert result.exit_code == 0, result.output
    assert result.stdout == "lists: 200 query, 500 train, 1,097 database\n"
    image_set = digits()
    paths = {part: f"lists/{part}.txt" for part in ("train", "database")}
    split = given(image_set, 0, queries="lists/query.txt", **paths, max_missing_fraction=0.0)
    summary = json.loads(Path("lists/split.json").read_text())
    assert summary["split"] == split.checksum
    assert summary["data"] == image_set.checksum
    assert (summary["dataset"], summary["seed"], summary["protocol"]["train_per_class"]) == (
        "digits",
        3,
        50,
    )
    assert (summary["query"], summary["train"], summary["database"]) == (200, 500, 1097)

    result = run_command("data", "splits", "lists", "--check")
    assert result.exit_code == 0, result.output
    assert "fits digits" in result.stdout
    settings = ["protocol=given", "protocol.queries=lists/query.txt"]
    settings += [f"protocol.{part}={path}" for part, path in paths.items()]
    again = run_command("data", "splits", "again", *settings)
    assert again.exit_code == 0, again.output
    for part in ("query", "train", "database"):
        assert Path(f"again/{part}.txt").read_bytes() == Path(f"lists/{part}.txt").read_bytes()


def test_a_split_is_not_overwritten() -> None:
    Path("lists").mkdir()
    Path("lists/train.txt").write_text("mine")
    result = run_command("data", "splits", "lists")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: lists already holds train.txt. ")
    assert Path("lists/train.txt").read_text() == "mine"
    assert len(list(Path("lists").iterdir())) == 1


def test_changes_of_a_stored_split_are_named() -> None:
    assert run_command("data", "splits", "lists").exit_code == 0
    queries, database = Path("lists/query.txt"), Path("lists/database.txt")
    database_lines = database.read_text()
    moved, _, rest = database_lines.partition("\n")
    query_lines = queries.read_text()

    def find_differences() -> list[str]:
        result = run_command("data", "splits", "lists", "--check")
        assert result.exit_code == 1, result.output
        return result.stdout.splitlines()

    database.write_text(rest)
    queries.write_text(f"{query_lines}{moved}\n")
    differences = find_differences()
    assert differences[0] == f"train.txt names 1 of the queries, for example {moved}"
    assert differences[1].startswith("split is ")
    assert differences[2:] == [
        "query is 301, but split.json says 300",
        "database is 1496, but split.json says 1497",
    ]

    queries.write_text(query_lines)
    database.write_text(database_lines.replace(f"{moved}\n", "digits/9999\n"))
    differences = find_differences()
    assert (
        differences[0]
        == "database.txt names 1 images that are not in digits, for example digits/9999. The "
        "names there are like digits/0."
    )

    database.write_text(database_lines)
    assert run_command("data", "splits", "lists", "--check").exit_code == 0
    summary = Path("lists/split.json")
    summary.write_text(summary.read_text().replace(digits().checksum, "0" * 64))
    (difference,) = find_differences()
    assert difference == f"data is {digits().checksum}, but split.json says {'0' * 64}"
    summary.write_text("[]")
    assert run_command("data", "splits", "lists", "--check").exit_code == 2
