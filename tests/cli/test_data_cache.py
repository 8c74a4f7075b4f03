"""`deephash data cache`: what it lists and removes."""

from datetime import datetime
from pathlib import Path

import numpy as np
import PIL
import pytest
from sample_images import load_image_folder, write_class_folders
from typer.testing import CliRunner

from deephash.cli.entry import app
from deephash.data.files.decoded_store import VERSION, lock_store

STORES = [f"v{VERSION}-{size}px-full-pillow{PIL.__version__}" for size in (16, 24)]
OLD_STORES = ["0123456789abcdef", "fedcba9876543210.unfinished"]


@pytest.fixture
def decoded_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stores, those of version 0.2, and what is none."""
    monkeypatch.chdir(tmp_path)
    source = write_class_folders(tmp_path / "photos")
    folder = tmp_path / "runs" / "decoded"
    for size in (16, 24):
        load_image_folder(source, size=size, decoded_dir=str(folder))
    for name in OLD_STORES:
        (folder / name).mkdir()
        np.save(folder / name / "contents.npy", np.zeros(5, dtype=np.uint64))
    (folder / "other").mkdir()
    (folder / "other" / "index.bin").write_bytes(b"")
    return folder


def run_cache(*arguments: str, code: int = 0) -> list[str]:
    result = CliRunner().invoke(app, ["data", "cache", *arguments])
    assert result.exit_code == code, result.output
    return result.output.splitlines()


def test_stores_are_listed(decoded_dir: Path) -> None:
    """Of the default folder, and of one that is named in three ways."""
    place, heading, *lines = run_cache()
    assert place == "runs/decoded"
    assert heading.split() == ["store", "images", "MB", "last", "added"]
    year = str(datetime.now().year)
    assert [line.split()[:3] for line in lines] == [
        [OLD_STORES[0], "5", "0.0"],
        [OLD_STORES[1], "5", "0.0"],
        [STORES[0], "8", "0.0"],
        [STORES[1], "8", "0.0"],
    ]
    assert all(line.split()[3].startswith(year) for line in lines)
    assert run_cache(str(decoded_dir))[2:] == lines


def test_one_store_is_removed_and_then_all(decoded_dir: Path) -> None:
    assert run_cache("--remove", STORES[0]) == [f"removed {STORES[0]}"]
    kept = [*OLD_STORES, STORES[1]]
    assert [line.split()[0] for line in run_cache()[2:]] == kept
    assert run_cache("--clear") == [f"removed {name}" for name in kept]
    assert {path.name for path in decoded_dir.iterdir()} == {"other", "photos.report.json"}
    assert run_cache("--clear") == run_cache() == ["runs/decoded: no decoded images"]


def test_a_store_that_grows_is_not_removed(decoded_dir: Path) -> None:
    with lock_store(decoded_dir / STORES[0]):
        lines = run_cache("--remove", STORES[0], "--remove", STORES[1], code=1)
    assert lines == [f"kept {STORES[0]}: a process adds images to it", f"removed {STORES[1]}"]
    assert (decoded_dir / STORES[0]).is_dir()


def test_mistakes_are_sentences(decoded_dir: Path) -> None:
    (line,) = run_cache("--remove", "v1-16", code=2)
    assert line.startswith("error: --remove v1-16: not in runs/decoded. ")
    (line,) = run_cache(str(decoded_dir / "photos.report.json"), code=2)
    assert line == f"error: {decoded_dir / 'photos.report.json'}: Not a directory."
    assert run_cache("elsewhere") == ["elsewhere: no decoded images"]
