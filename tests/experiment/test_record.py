"""The record of a run, and the order in which its report is written."""

import json
import re
from pathlib import Path

import pytest
from conftest import ComposeRun, FinishedRun

from deephash.experiment.run import run


def test_record_tells_what_determined_the_run(finished_run: FinishedRun) -> None:
    record = json.loads((finished_run.folder / "record.json").read_text())
    results = json.loads((finished_run.folder / "metrics.json").read_text())
    assert results["record"] == record
    assert record["tags"] == ["baseline", "small nets"]
    assert (record["bits"], record["seed"], record["processes"]) == (20, 0, 1)
    assert record["images"]["query"] == 300
    assert record["commit"] is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", record["commit"])
    for name in ("data", "split", "source_digest"):
        assert re.fullmatch("[0-9a-f]{64}", record[name]), name


def test_a_run_is_finished_only_when_its_plots_are_there(
    compose_run: ComposeRun, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    obstacle = folder / "plots"
    obstacle.parent.mkdir()
    obstacle.write_text("not a folder")
    cfg = compose_run("phases=scratch")
    with pytest.raises(FileExistsError):
        run(cfg, folder)
    obstacle.unlink()
    with caplog.at_level("INFO", "deephash"):
        run(cfg, folder)
    assert "found finished" not in caplog.text
    assert (folder / "metrics.json").is_file()
    assert len(list((folder / "plots").glob("*.png"))) == 4
