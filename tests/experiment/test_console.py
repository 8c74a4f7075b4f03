"""What a run shows: the last table, a bar on a terminal, and of a sweep the milestones."""

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, ComposeRun, compose_config

from deephash.experiment.console import (
    StdoutHandler,
    log_results,
    log_run_of_many,
    log_to_stdout,
)
from deephash.experiment.settings import validate_settings

RECORD = {
    "dataset": "my [bold] set",
    "bits": 12,
    "method": {"_target_": "deephash.methods.joint.Joint"},
    "images": {"query": 300, "database": 1497},
}
METRICS = {
    "map": 0.75,
    "map_best": 0.8,
    "map_worst": 0.7,
    "map@100": 0.9,
    "map@1000": 0.85,
    "precision@100": 0.6,
    "precision@1000": 0.5,
    "recall@1000": 0.4,
    "precision_radius2": 0.3,
    "recall_radius2": 0.2,
    "empty_balls_radius2": 0.125,
    "bit_imbalance": 0.1,
    "distinct_codes": 1234.0,
}


def test_the_last_table_has_eight_rows_with_full_names(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs/[red]/a [b]")
    settings = validate_settings(compose_config("bits=12"))
    with log_to_stdout():
        log_results(folder, settings, RECORD, METRICS, {"hash": 2.0, "total": 3.25})
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == "Joint on my [bold] set, 12 bits, 300 queries in a database of 1,497"
    table = dict(re.split("  +", row, maxsplit=1) for row in rows[:8])
    assert table == {
        "mean average precision (mAP)": "0.7500  (0.7000 to 0.8000 by order of ties)",
        "mAP of the first 1,000": "0.8500",
        "precision of the first 1,000": "0.5000",
        "precision in Hamming radius 2": "0.3000",
        "recall in Hamming radius 2": "0.2000",
        "queries with no image in radius 2": "12.50%",
        "distinct codes in the database": "1,234 of 1,497 images",
        "seconds": "3.2",
    }
    assert all(len(row) <= 80 for row in rows[:8])
    assert rows[8] == f"metrics      {folder}/metrics.json"
    assert len(rows) == 13


def test_a_run_of_a_sweep_shows_milestones_below_its_name_and_logs_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = logging.getLogger("deephash.test")
    with log_to_stdout(), log_run_of_many(tmp_path / "bits=8,seed=0"):
        log.info("hash 1/2")
        log.info("hash 2/2", extra={"milestone": True})
        log.warning("two\nlines [b]")
    with log_to_stdout():
        log.info("after")
    assert capsys.readouterr().out.splitlines() == [
        "bits=8,seed=0: hash 2/2",
        "bits=8,seed=0: two",
        "bits=8,seed=0: lines [b]",
        "after",
    ]
    written = (tmp_path / "bits=8,seed=0" / "log.txt").read_text()
    for text in ("hash 1/2\n", "hash 2/2\n", "two\nlines [b]\n"):
        assert text in written
    assert "after" not in written
    package = logging.getLogger("deephash")
    assert not any(
        isinstance(handler, logging.FileHandler | StdoutHandler) for handler in package.handlers
    )


def run_on_terminal(*overrides: str, cwd: Path, columns: int = 80) -> str:
    """Run train.py on a pseudo-terminal; return what it wrote, without colours."""
    terminal, side = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=cwd,
        env={**os.environ, "TERM": "xterm"} | {"COLUMNS": ""},
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    written = b""
    while True:
        try:
            block = os.read(terminal, 1 << 16)
        except OSError:  # Linux says so when the other side is closed
            break
        if not block:
            break
        written += block
    os.close(terminal)
    assert process.wait(timeout=60) == 0, written.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())


def test_the_bar_on_a_terminal_names_phase_and_epoch_and_fits_80_columns(tmp_path: Path) -> None:
    epochs = {"pretrain": 2, "init": 1, "hash": 2}
    settings = [a for a in QUICK if ".epochs=" not in a]
    settings += [f"training.{name}.epochs={count}" for name, count in epochs.items()]
    output = run_on_terminal(*settings, "logger=none", "run_dir=run", cwd=tmp_path)
    assert "0/0" not in output
    frames = [frame.rstrip() for frame in re.split(r"[\r\n]+", output)]
    for name, count in epochs.items():
        bars = [f for f in frames if re.match(rf"{name} \d+/\d+ .*━", f)]
        assert bars, name
        assert {re.match(r"\S+ (\S+)", bar)[1] for bar in bars} == {  # type: ignore[index]
            f"{epoch}/{count}" for epoch in range(1, count + 1)
        }
        metric = "val/accuracy" if name == "pretrain" else "val/map"
        assert re.search(rf"loss \d\.\d{{3}}  {metric} \d\.\d{{3}}$", bars[-1]), bars[-1]
    assert max(len(frame) for frame in frames if "━" in frame) <= 80


def test_a_search_shows_the_milestones_of_its_runs(
    compose_run: ComposeRun, light_runs: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from deephash.experiment.sweep import run_sweep_job

    cfg = compose_run("phases=scratch", "training.hash.epochs=2")
    with log_to_stdout():
        run_sweep_job(cfg, tmp_path / "trial-0")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("trial-0: hash 2/2  loss ")
    assert "hash 1/2" in (tmp_path / "trial-0" / "log.txt").read_text()
