"""The record of a run, and the order in which its report is written."""

import json
import re
from pathlib import Path

import pytest
from conftest import ComposeRun, FinishedRun, resume_run

from deephash.core.errors import UserError
from deephash.experiment.run import run


def test_record_tells_what_determined_the_run(finished_run: FinishedRun) -> None:
    record = json.loads((finished_run.folder / "record.json").read_text())
    results = json.loads((finished_run.folder / "metrics.json").read_text())
    assert results["record"] == record
    assert record["tags"] == ["baseline", "small nets"]
    assert (record["bits"], record["seed"], record["processes"]) == (20, 0, 1)
    assert record["images"]["query"] == 300
    assert record["commit"] is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", record["commit"])
    for name in ("data", "split", "source_digest", "method_digest"):
        assert re.fullmatch("[0-9a-f]{64}", record[name]), name


def test_a_run_is_finished_only_when_its_plots_are_there(
    compose_run: ComposeRun, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    obstacle = folder / "plots" / "curves.png"
    obstacle.mkdir(parents=True)
    cfg = compose_run("phases=scratch")
    with pytest.raises(UserError, match=rf"{obstacle} cannot be written to: Is a dir.*resume="):
        run(cfg, folder)
    obstacle.rmdir()
    with caplog.at_level("INFO", "deephash"):
        run(cfg, folder)
    assert "reusing the finished" not in caplog.text
    assert (folder / "metrics.json").is_file()
    assert len(list((folder / "plots").glob("*.png"))) == 4


def test_a_run_resumed_with_other_code_says_so_and_records_both(
    scratch_run: Path, light_runs: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = scratch_run / "record.json"
    record = json.loads(path.read_text())
    assert "earlier_code" not in record
    before = {"source_digest": "1" * 64, "method_digest": "2" * 64}
    path.write_text(json.dumps(record | before))
    lines = []
    for _ in range(2):
        caplog.clear()
        (scratch_run / "metrics.json").unlink()
        resume_run(scratch_run)
        lines.append([line for line in caplog.messages if "resumed with other code" in line])
        resumed = json.loads(path.read_text())
        (earlier,) = resumed.pop("earlier_code")
        assert resumed == record
        assert earlier.items() >= before.items()
    assert "the source of backbone or training, the source of the method" in lines[0][0]
    assert lines[1] == []  # the second time the code was the same as before
