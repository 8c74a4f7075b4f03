"""A wheel in a new environment and an empty folder: it trains, sweeps and audits, and uses a
package of a user's own.
"""

import csv
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

OWN_PACKAGE = {
    "__init__.py": "",
    "methods.py": '''
"""A method that pulls codes of a class together and pushes the others apart."""
from deephash.methods.base import HashBatch, Method, shares_label
from torch import Tensor, nn


class Hinge(Method):
    def __init__(self, num_features: int, bits: int, num_classes: int, *, margin: float) -> None:
        super().__init__()
        self.head = nn.Linear(num_features, bits)
        self.margin = margin

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features)

    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        codes = batch.logits.tanh()
        inner = codes @ codes.T / codes.shape[1]
        similar = shares_label(batch.labels, batch.labels)
        return {"loss": (1 - inner[similar]).mean() + (inner[~similar] + self.margin).relu().mean()}
''',
    "backbones.py": '''
"""A perceptron."""
from torch import nn


class Perceptron(nn.Sequential):
    def __init__(self, in_chans: int, image_size: tuple[int, int], *, width: int) -> None:
        pixels = in_chans * image_size[0] * image_size[1]
        super().__init__(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU())
        self.num_features = width
''',
    "data.py": '''
"""Squares and crosses."""
import numpy as np
import torch
from deephash.data.image_set import ImageSet


def shapes(*, count: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 60, (count, 1, 16, 16), dtype=np.uint8)
    for image, label in zip(images[:, 0], labels, strict=True):
        row, column = rng.integers(0, 8, 2)
        patch = image[row : row + 8, column : column + 8]
        patch[np.eye(8, dtype=bool) if label else np.ones((8, 8), bool)] += 190
    return ImageSet(
        name="shapes",
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        ids=np.array([f"shape/{i}" for i in range(count)]),
        classes=("square", "cross"),
        is_test=np.zeros(count, dtype=bool),
    )
''',
    "conf/method/hinge.yaml": "# Of mylab.\n_target_: mylab.methods.Hinge\nmargin: 0.5\n",
    "conf/backbone/mlp.yaml": "# Of mylab.\n_target_: mylab.backbones.Perceptron\nwidth: 32\n",
    "conf/dataset/shapes.yaml": "# Of mylab.\n_target_: mylab.data.shapes\ncount: 600\nseed: 1\n",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel, and dependencies from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    quiet = {"check": True, "capture_output": True, "text": True}
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, **quiet)
    (wheel,) = folder.glob("deephash-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], **quiet)
    python = folder / "venv" / "bin" / "python"
    (site_packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", wheel], **quiet)
    return python.parent


@pytest.fixture
def deephash(environment: Path, tmp_path: Path):
    """Run the program of the wheel in an empty folder."""

    def run(*arguments: str, python_path: Path | None = None) -> str:
        variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "WANDB_MODE")}
        if python_path:
            variables["PYTHONPATH"] = str(python_path)
        done = subprocess.run(
            [environment / "deephash", *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


FAST = ("training.pretrain.epochs=1", "training.init.epochs=1", "training.hash.epochs=1",
        "logger=none")  # fmt: skip


def test_the_wheel_is_complete(environment: Path, tmp_path: Path) -> None:
    script = (
        "import deephash, pathlib; folder = pathlib.Path(deephash.__file__).parent;"
        "print(folder, *((folder / n).is_file() for n in ('conf/config.yaml', 'py.typed')))"
    )
    done = subprocess.run(
        [environment / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    folder, has_conf, is_typed = done.stdout.split()
    assert Path(folder).is_relative_to(environment.parent)
    assert (has_conf, is_typed) == ("True", "True")


def test_trains_sweeps_and_audits(deephash, tmp_path: Path) -> None:
    assert "mean average precision (mAP)" in deephash("train", *FAST)
    assert len(list(tmp_path.glob("runs/*/*/metrics.json"))) == 1
    deephash("train", "-m", "bits=12,24", "run_dir=runs/sweep", *FAST)
    with (tmp_path / "runs" / "sweep" / "sweep.csv").open() as file:
        assert [(row["bits"], row["status"]) for row in csv.DictReader(file)] == [
            ("12", "finished"), ("24", "finished")
        ]  # fmt: skip
    assert "no query also occurs in the training set or the database" in deephash(
        "data", "audit", "dataset=digits"
    )


def test_uses_a_package_of_the_users_own(deephash, tmp_path: Path) -> None:
    for name, text in OWN_PACKAGE.items():
        path = tmp_path / "own" / "mylab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())
    own = ["hydra.searchpath=[pkg://mylab.conf]", "dataset=shapes"]
    chosen = [*own, "method=hinge", "backbone=mlp", "evaluation.ks=[10]"]
    path = tmp_path / "own"
    deephash("train", *chosen, "run_dir=runs/one", *FAST, python_path=path)
    record = json.loads((tmp_path / "runs/one/metrics.json").read_text())["record"]
    assert record["dataset"] == "shapes"
    assert record["method"] == {"_target_": "mylab.methods.Hinge", "margin": 0.5}
    sweep = ["-m", "method.margin=0.2,0.4", "run_dir=runs/sweep"]
    deephash("train", *sweep, *chosen, *FAST, python_path=path)
    margins = {
        json.loads(file.read_text())["record"]["method"]["margin"]
        for file in (tmp_path / "runs" / "sweep").glob("*/metrics.json")
    }
    assert margins == {0.2, 0.4}
    assert "shapes" in deephash("data", "audit", *own, python_path=path)
    help_text = deephash("train", "--help", *own, python_path=path)
    assert "    hinge  Of mylab." in help_text
