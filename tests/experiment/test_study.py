"""The file of a search: locked by a killed process, cut, or damaged."""

import os
import time
from pathlib import Path

import pytest

from deephash.core.errors import UserError

pytest.importorskip("optuna")

from optuna.storages.journal import JournalFileSymlinkLock

from deephash.experiment.study import open_study


def test_a_study_that_a_killed_process_had_locked_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a path relative to the current folder, as in the README."""
    monkeypatch.chdir(tmp_path)
    path = Path("runs/tuning/study.log")
    storage, _ = open_study(path)
    storage._backend._lock.acquire()  # and the process is killed
    assert os.readlink(f"{path}.lock") == str(tmp_path / path)
    init = JournalFileSymlinkLock.__init__
    monkeypatch.setattr(init, "__defaults__", (1,))  # seconds, not 30
    start = time.monotonic()
    _, study = open_study(path)
    study.ask()
    assert time.monotonic() - start < 20
    assert not list(path.parent.glob("*.lock*"))


def test_a_line_that_a_killed_process_had_begun_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    _, study = open_study(path)
    study.tell(study.ask(), 0.5)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker')
    for number in (1, 2):
        _, study = open_study(path)
        study.tell(study.ask(), 0.5)
        assert len(study.get_trials()) == number + 1
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    "content", [b"garbage\n", b"\xff\x00\n", b"[1]\n", b'{"a": 1}\n', b'{"op_code": 77}\n']
)
def test_a_damaged_study_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    for before in (b"", None):
        if before is None:
            path.unlink()
            open_study(path)[1].ask()
            before = path.read_bytes()
        path.write_bytes(before + content)
        with pytest.raises(UserError, match=rf"^{path} is damaged: .*name another") as error:
            open_study(path)
        assert "\n" not in str(error.value)
        assert path.read_bytes() == before + content


def test_a_folder_in_place_of_the_study_or_a_file_in_place_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "study.log").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "study.log", tmp_path / "file" / "study.log"):
        with pytest.raises(UserError, match=rf"run_dir={path.parent} cannot hold a search"):
            open_study(path)
