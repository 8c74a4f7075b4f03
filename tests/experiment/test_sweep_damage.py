"""A sweep with a damaged member: one sentence names the file and the remedy; exit code 1."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from deephash.core.errors import UserError
from deephash.experiment.run import read_metrics
from deephash.experiment.sweep import SweepSummary
from deephash.experiment.sweep_summary import curves_by_settings, write_sweep_summary

METRICS: dict[str, Any] = {
    "test": {"map": 0.5},
    "validation": {"val/map": 0.6},
    "seconds": {"total": 1},
    "record": {
        "bits": 8,
        "dataset": "digits",
        "method": {"_target_": "deephash.methods.joint.Joint"},
        "images": {"query": 3, "database": 5},
    },
}


def write_member(folder: Path, metrics: str = json.dumps(METRICS)) -> Path:
    (folder / "plots").mkdir(parents=True)
    (folder / "overrides.json").write_text('{"bits": "8"}')
    (folder / "metrics.json").write_text(metrics)
    points = "".join(f"{radius},{1 - radius / 8},{radius / 8}\n" for radius in range(9))
    (folder / "plots" / "precision_recall.csv").write_text(f"radius,precision,recall\n{points}")
    return folder


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("test", ["map"]), ("test", "map"), ("test.map", "high"), ("test.map", None),
        ("test.map", [0.5]), ("validation", None), ("validation", [0.6]),
        ("validation", {"val/map": "high"}), ("seconds", None), ("seconds", {}),
        ("seconds.total", "1 s"), ("record", None), ("record", {}), ("record.bits", "eight"),
        ("record.bits", None), ("record.images", [3, 5]), ("record.images", {"query": "3"}),
        ("record.method", "joint"), ("record.method", {}), ("record.dataset", ...),
    ],
)  # fmt: skip
def test_metrics_of_the_wrong_kind_are_named(place: str, value: Any, tmp_path: Path) -> None:
    metrics = copy.deepcopy(METRICS)
    group, _, key = place.rpartition(".")
    node = metrics[group] if group else metrics
    if value is ...:
        del node[key]
    else:
        node[key] = value
    write_member(tmp_path, json.dumps(metrics))
    with pytest.raises(UserError, match=r"metrics.json does not hold the metrics of a run. Delete"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"5", b'"text"', b"\x89PNG\xff\x00", b'{"test": {"map', b"[" * 100_000]
)
def test_metrics_that_cannot_be_read_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics.json does not hold the metrics of a run. Delete"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "metrics.json").write_text("{}"), "metrics.json does not hold the metrics"),
        (lambda f: (f / "overrides.json").write_text("[1]"), "overrides.json is damaged. Delete"),
        (lambda f: (f / "overrides.json").write_bytes(b"\xff"), "overrides.json is damaged. Del"),
        (lambda f: (f / "failed.txt").mkdir(), "failed.txt must be a file. Move away what lies"),
        (lambda f: (f / "failed.txt").write_bytes(b"disk \xff full"), "disk \ufffd full"),
    ],
)
def test_a_damaged_member_counts_as_failed(
    damage: Callable[[Path], Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_member(tmp_path / "seed=0")
    damage(write_member(tmp_path / "seed=1"))
    assert write_sweep_summary(tmp_path) == 1
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("failed: ")]
    assert reason in line
    assert "seed=1" in line


@pytest.mark.parametrize("damaged", [0, 2])
@pytest.mark.parametrize("content", ["", "radius\n0\n1\n", "a,b,c\n0,1,0\n", "\0x", "a,b,c\n0,x,1"])
def test_damaged_curves_are_left_out_and_named(
    content: str, damaged: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"run": f"seed={seed}", "bits": 8, "seed": seed} for seed in range(3)]
    for row in rows:
        write_member(tmp_path / str(row["run"]))
    path = tmp_path / f"seed={damaged}" / "plots" / "precision_recall.csv"
    path.write_text(content)
    ((precision, recall),) = curves_by_settings(tmp_path, rows).values()
    np.testing.assert_array_equal([precision, recall], [np.arange(8, -1, -1) / 8, np.arange(9) / 8])
    assert capsys.readouterr().out == f"Left out of the plot, as it is damaged: {path}\n"


def test_a_table_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_member(tmp_path / "bits=8")
    (tmp_path / "sweep.csv").mkdir()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(SystemExit, match="1"):
        SweepSummary().on_multirun_end(config)
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}/sweep.csv cannot be written to: Is a directory.")
    assert err.count("\n") == 1
