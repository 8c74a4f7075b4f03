"""Runs of train.py that a benchmark is made of."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "train.py"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Where data and runs lie."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data-dir", type=Path, required=True, help="holds MNIST and CIFAR-10")
    options.add_argument("--runs", type=Path, default=HERE / "runs", help="where the runs lie")
    return options


def trained(overrides: list[str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of a run: of a finished one as they are, else it is run, or gone on with."""
    figures = folder / "metrics.json"
    if not figures.is_file():
        cache = options.runs.resolve() / "pretrained"
        places = [f"data_dir={options.data_dir.resolve()}", f"cache_dir={cache}"]
        if (folder / "config.yaml").is_file():
            command = [f"resume={folder}"]
        else:
            command = [*overrides, f"run_dir={folder}", *places]
        subprocess.run([sys.executable, TRAIN, *command], check=True)
    return json.loads(figures.read_text())
