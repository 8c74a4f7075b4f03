"""Every command of the README runs, and every figure in it is that of a benchmark."""

import re
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, ROOT, composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from sample_images import class_folders, labels_of_nuswide, official_nuswide

from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.experiment.settings import checked

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
TRAINING = [line.split("train.py", 1)[1].split() for line in LINES if "train.py" in line]
# Those that need a cluster, GPUs or hours; test_sweep.py, test_search.py and test_processes.py
# run the like of them.
ELSEWHERE = ("launcher=", "search=", "trainer=ddp")
MADE = ("dataset=images", "dataset=nuswide", "experiment=images_pretrained")  # by the test

# Few epochs and steps, small nets; what a command says of anything else stands.
SHORT = [*QUICK, "logger=none"]


def key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def train(arguments: list[str], folder: Path, *also: str) -> str:
    """Run train.py with `arguments` and `also`, shortened by what they do not say themselves."""
    arguments = [*(a for a in arguments if not key(a).endswith(".epochs")), *also]
    said = {key(argument) for argument in arguments}
    chosen = [a for a in arguments if key(a) in ("dataset", "backbone", "experiment")]
    if "widths" not in composed(*chosen).backbone:
        said.add("backbone.widths")
    short = [override for override in SHORT if key(override) not in said]
    short.append(f"+trainer.limit_train_batches={5 if 'backbone=timm' in chosen else 30}")
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *arguments, *short],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_are_found() -> None:
    assert LINES[0] == "pip install -e . && python train.py"
    assert LINES[1] == "pip install -e '.[dev]' && pytest"
    assert len(TRAINING) > 8


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_settings_of_each_command_are_valid(arguments: list[str]) -> None:
    given = [a for a in arguments if a != "-m" and not a.startswith("resume=")]
    first_of_each_sweep = []
    for override in OverridesParser.create().parse_overrides(given):
        value = override.value()
        if override.is_sweep_override():
            value = next(override.sweep_string_iterator())
        first_of_each_sweep.append(f"{override.key_or_group}={value}")
    checked(composed(*first_of_each_sweep))


def test_the_main_command_trains_on_the_embedded_digits(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "digits, 48 bits, 300 queries in a database of 1,497" in done.stdout
    (folder,) = tmp_path.glob("runs/*/*/metrics.json")
    assert (folder.parent / "pictures" / "neighbours.png").is_file()

    (search,) = (
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "knn(" in block
    )
    found: dict[str, Any] = {}
    exec(search.replace("runs/DATE/TIME", str(folder.parent)), found)
    assert found["nearest"].shape == found["distances"].shape == (300, 100)


def fewer_images(folder: Path) -> list[str]:
    """The protocol test-vs-train with a tenth of the images."""
    for name, part, count in ("query", "test", 1000), ("train", "train", 5000):
        (folder / f"{name}.txt").write_text("".join(f"{part}/{i}\n" for i in range(count)))
    lists = {"queries": "query.txt", "train": "train.txt", "database": "train.txt"}
    return ["protocol=given", *(f"protocol.{name}={at}" for name, at in lists.items())]


@pytest.mark.realdata
@pytest.mark.parametrize(
    "arguments",
    [
        a
        for a in TRAINING
        if a
        and "seed=0,1,2" not in a
        and not a[0].startswith("resume")
        and not any(b.startswith((*ELSEWHERE, *MADE)) for b in a)
    ],
    ids=" ".join,
)
def test_runs_on_real_data(arguments: list[str], data_dir: Path, tmp_path: Path) -> None:
    also = [f"data_dir={data_dir.resolve()}"]
    if {"dataset", "experiment"} & set(map(key, arguments)) and "protocol" not in map(
        key, arguments
    ):
        also += fewer_images(tmp_path)
    train([*arguments, *also], tmp_path)
    values = [argument.partition("=")[2].split(",") for argument in arguments]
    assert len(list(tmp_path.glob("runs/*/*/**/metrics.json"))) == prod(map(len, values))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos`, `photos.csv` and a small NUS-WIDE."""
    folder = tmp_path_factory.mktemp("made")
    photos = class_folders(folder / "photos", per_class=30)
    rows = [
        f"{path.relative_to(folder)},{'test' if i % 5 == 0 else 'train'},{'x;y' if i % 3 else 'x'}"
        for i, path in enumerate(sorted(photos.rglob("*.jpg")))
    ]
    (folder / "photos.csv").write_text("\n".join(["file,split,labels", *rows]))
    labels = labels_of_nuswide(rows=300)
    nuswide = folder / "data" / "NUS-WIDE"
    names = official_nuswide(nuswide, labels, "images")
    frequent = labels[:, [CONCEPTS.index(name) for name in FREQUENT]]
    lines = [
        f"images/{name.replace(chr(92), '/')} {' '.join(map(str, row))}"
        for name, row in zip(names, frequent, strict=True)
        if row.any()
    ]
    for name, some in {"test": lines[:60], "train": lines[60:160], "database": lines[60:]}.items():
        (nuswide / f"{name}.txt").write_text("\n".join(some))
    return folder


@pytest.mark.parametrize(
    "arguments", [a for a in TRAINING if any(b.startswith(MADE) for b in a)], ids=" ".join
)
def test_runs_on_images_in_files(arguments: list[str], made: Path) -> None:
    fewer = {"hashnet": ["protocol.queries=20", "protocol.train=90"], "given": []}
    (protocol,) = [a.partition("=")[2] for a in arguments if a.startswith("protocol=")] or ["tc21"]
    run_dir = f"run_dir=runs/{len(list(made.glob('runs/*')))}"
    small = [run_dir, "evaluation.ks=[10]", "phase.pretrain.batch_size=30"]
    if "dataset=images" in arguments:
        small += ["phase.pretrain.epochs=10", "phase.hash.optimizer.lr=0.001"]
    if "dataset=nuswide" in arguments:
        small += fewer.get(protocol, ["protocol.queries=2", "protocol.train=4"])
    output = train(arguments, made, *small)
    assert "mAP, expected over tie orders" in output


def test_the_data_is_checked(made: Path) -> None:
    commands = [line.split()[1:] for line in LINES if line.startswith("deephash ")]
    assert [command[:2] for command in commands] == [["data", "audit"], *[["data", "splits"]] * 2]
    for command in commands:
        program = Path(sys.executable).with_name("deephash")
        done = subprocess.run([program, *command], cwd=made, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len((made / "photos-split" / "query.txt").read_text().split()) == 6


def test_the_sweep_runs_and_shares_its_pretraining(tmp_path: Path) -> None:
    (sweep,) = (a for a in TRAINING if "seed=0,1,2" in a)
    assert sweep == ["-m", "dataset=cifar10", "bits=12,24,32,48", "seed=0,1,2"]
    output = train(["-m", "dataset=digits", *sweep[2:]], tmp_path)
    assert len(list(tmp_path.glob("runs/*/*/*/metrics.json"))) == 12
    assert output.count("pretrain 1/1") == 3
    assert output.count("pretrain: found finished") == 9


def test_resume_goes_on_with_a_run(tmp_path: Path) -> None:
    assert ["resume=runs/DATE/TIME"] in TRAINING
    train(["run_dir=runs/here"], tmp_path)
    (tmp_path / "runs" / "here" / "metrics.json").unlink()
    resumed = [sys.executable, ROOT / "train.py", "resume=runs/here"]
    subprocess.run(resumed, cwd=tmp_path, check=True)
    assert (tmp_path / "runs" / "here" / "metrics.json").is_file()


@pytest.mark.parametrize("path", re.findall(r"<!-- (benchmarks/\S+) -->", README))
def test_tables_are_those_of_the_benchmarks(path: str) -> None:
    shown = README.split(f"<!-- {path} -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == (ROOT / path).read_text().strip()
    assert shown.strip()
