"""What a run leaves at its end, and in which order."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from deephash.experiment.run import run


def test_a_run_is_finished_only_when_its_pictures_are_there(
    compose_run: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    in_the_way = folder / "pictures"
    in_the_way.write_text("not a folder")
    cfg = compose_run("phases=scratch")
    with pytest.raises(FileExistsError):
        run(cfg, folder)
    in_the_way.unlink()
    run(cfg, folder)
    assert "found finished" not in capsys.readouterr().out
    assert (folder / "metrics.json").is_file()
    assert len(list((folder / "pictures").glob("*.png"))) == 4
