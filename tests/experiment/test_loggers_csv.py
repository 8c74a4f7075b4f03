import csv
from pathlib import Path

from deephash.training.callbacks import CsvLogger


def test_curves_file_has_a_column_for_each_curve(tmp_path: Path) -> None:
    curves = CsvLogger(tmp_path / "curves.csv")
    curves.log_metrics({"hash/loss": 0.5}, step=10)
    curves.save()
    curves.log_metrics({"val/map": 0.25}, step=20)
    curves.save()
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(r["step"]), r["hash/loss"], r["val/map"]) for r in rows] == [
        (10, "0.5", ""),
        (20, "", "0.25"),
    ]
