"""Every command and every example of README.md and docs/ runs or is valid.

Commands that need GPUs, a cluster or hours are composed and validated; the others run, shortened.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT
from documents import COMMANDS, DATA, EXAMPLES, README, TRAINING
from hydra.core.override_parser.overrides_parser import OverridesParser
from sample_images import sample_nuswide_labels, write_class_folders, write_official_nuswide
from typer.testing import CliRunner

from deephash.cli.compose import compose_config
from deephash.cli.entry import app
from deephash.core.errors import UserError
from deephash.core.instantiate import check_node
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.experiment import plots
from deephash.experiment.run import run
from deephash.experiment.settings import validate_settings
from deephash.training.optimization import PhaseOptimization

PROGRAMS = {"python", "deephash", "torchrun", "srun", "git", "pip", "mkdir", "touch", "export"}
# What starts processes, needs a cluster or takes hours: the tests of sweeps, of tuning and of
# distributed training run commands like these.
ONLY_VALIDATED = ("-m", "launcher", "tuning", "resume", "trainer")
IN_FILES = ("dataset=image_folder", "dataset=nuswide", "experiment=image_folder_pretrained")
SHORT = [*QUICK, "logger=none"]


def key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def sets(arguments: tuple[str, ...], *names: str) -> bool:
    """Whether the command sets a group or setting, or has an option, of one of these names."""
    return bool(set(names) & set(map(key, arguments)))


def kind_of(arguments: tuple[str, ...]) -> str:
    """Which test runs a training command: by the data that it needs; "none" if it is validated."""
    if sets(arguments, *ONLY_VALIDATED) and not sets(arguments, "debug"):
        return "none"
    if sets(arguments, "hydra.searchpath", "--config-dir"):
        return "examples"
    if set(arguments) & set(IN_FILES):
        return "files"
    return "real" if sets(arguments, "dataset", "experiment") else "digits"


def commands(kind: str) -> list[tuple[str, ...]]:
    return [arguments for arguments in TRAINING if kind_of(arguments) == kind]


def overrides_of(arguments: tuple[str, ...]) -> list[str]:
    """The settings of a command; of a sweep those of its first run."""
    arguments = tuple(argument for argument in arguments if argument != "-m")
    if "--config-dir" in arguments:
        at = arguments.index("--config-dir")
        path = Path(arguments[at + 1]).absolute()
        arguments = (*arguments[:at], *arguments[at + 2 :], f"hydra.searchpath=[file://{path}]")
    first = []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if override.is_sweep_override():
            first.append(f"{override.key_or_group}={next(override.sweep_string_iterator())}")
        else:
            first.append(str(override.input_line))
    return first


def shortened(arguments: tuple[str, ...], *more: str) -> list[str]:
    """The settings of a command with few epochs, few steps and small nets."""
    given = [a for a in overrides_of(arguments) if not key(a).endswith(".epochs")]
    cfg = compose_config(given)
    short = [a for a in SHORT if key(a) not in map(key, given)]
    if "widths" not in cfg.backbone:
        short.remove("backbone.widths=[16,48,64]")
    return [*given, *short, "++trainer.limit_train_batches=5", *more]


def train(arguments: tuple[str, ...], run_dir: Path, *more: str) -> None:
    """Run a command, shortened, in this process."""
    run(compose_config([*shortened(arguments, *more), f"run_dir={run_dir}"]))
    assert (run_dir / "metrics.json").is_file()


def run_program(*arguments: str | Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take most of the time of such short runs; that of the main command draws them."""
    monkeypatch.setattr(plots, "draw", lambda *args, **kwargs: {})


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the examples of the documents, from which they can be imported."""
    folder = tmp_path_factory.mktemp("examples")
    for name, content in EXAMPLES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for package in ("mylab", "mylab/conf"):
        (folder / package / "__init__.py").touch()
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos`, `photos.csv`, lists, and a small NUS-WIDE."""
    folder = tmp_path_factory.mktemp("files")
    photos = sorted(write_class_folders(folder / "photos", per_class=30).rglob("*.jpg"))
    rows = [
        f"{path.relative_to(folder)},{'test' if i % 5 == 0 else 'train'},{'x;y' if i % 3 else 'x'}"
        for i, path in enumerate(photos)
    ]
    (folder / "photos.csv").write_text("\n".join(["file,split,labels", *rows]))
    ids = [path.relative_to(folder / "photos").as_posix() for path in photos]
    rows = [f"{i},{name},{i % 2},{(i + 1) % 2}" for i, name in enumerate(ids)]
    (folder / "labels.csv").write_text("\n".join(["n,Filenames,desert,sea", *rows]))
    (folder / "query.txt").write_text("\n".join(ids[::10]))
    (folder / "database.txt").write_text("\n".join(i for i in ids if i not in ids[::10]))
    labels = sample_nuswide_labels(rows=300)
    nuswide = folder / "data" / "NUS-WIDE"
    names = write_official_nuswide(nuswide, labels, "images")
    frequent = labels[:, [CONCEPTS.index(name) for name in FREQUENT]]
    lines = [
        f"images/{name.replace(chr(92), '/')} {' '.join(map(str, row))}"
        for name, row in zip(names, frequent, strict=True)
        if row.any()
    ]
    parts = {"test": lines[:60], "train": lines[60:160], "database": lines[60:]}
    for name, listed in parts.items():
        (nuswide / f"{name}.txt").write_text("\n".join(listed))
        paths = [line.partition(" ")[0] for line in listed]
        (nuswide / f"{name}_img.txt").write_text("\n".join(paths))
        np.save(
            nuswide / f"{name}_label.npy", np.array([line.split()[1:] for line in listed], np.uint8)
        )
    return folder


def test_every_command_is_known() -> None:
    assert {words[0] for words in COMMANDS} == PROGRAMS
    assert len(TRAINING) > 40
    assert all(len(commands(kind)) > 3 for kind in ("digits", "examples", "files", "real"))


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_settings_of_each_command_are_valid(arguments: tuple[str, ...], examples: Path) -> None:
    given = tuple(a for a in arguments if not a.startswith("resume="))
    with chdir(examples):
        settings = validate_settings(compose_config(overrides_of(given)))
    for place in ("dataset", "backbone", "method"):
        check_node(place, getattr(settings, place))
    check_node("protocol", settings.protocol.node())
    for name, phase in settings.ordered_phases().items():
        PhaseOptimization(f"training.{name}", phase, torch.float32)


def test_the_main_command_its_search_and_its_resumption(tmp_path: Path) -> None:
    output = run_program(ROOT / "train.py", folder=tmp_path)
    assert "digits, 48 bits, 300 queries in a database of 1,497" in output
    (metrics,) = tmp_path.glob("runs/*/*/metrics.json")
    folder = metrics.parent
    assert (folder / "plots" / "neighbours.png").is_file()

    (search,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "knn(" in b)
    variables: dict[str, Any] = {}
    exec(search.replace("runs/DATE/TIME", str(folder)), variables)
    assert variables["nearest"].shape == variables["distances"].shape == (300, 100)

    assert ("resume=runs/DATE/TIME",) in TRAINING
    metrics.unlink()
    run_program(ROOT / "train.py", f"resume={folder.relative_to(tmp_path)}", folder=tmp_path)
    assert metrics.is_file()


@pytest.mark.parametrize("arguments", commands("digits"), ids=" ".join)
def test_runs_on_digits(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(arguments, tmp_path / "run", f"cache_dir={tmp_path}")


@pytest.mark.parametrize("arguments", commands("examples"), ids=" ".join)
def test_runs_with_the_examples(arguments: tuple[str, ...], examples: Path, tmp_path: Path) -> None:
    with chdir(examples):
        train(arguments, tmp_path / "run", f"cache_dir={tmp_path}")


@pytest.mark.slow
def test_the_page_on_extending_works_as_a_script(tmp_path: Path) -> None:
    for name, content in EXAMPLES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    page = (ROOT / "docs" / "extending.md").read_text()
    script = "\n".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL))
    script = re.sub(r"(deephash train .*)", r"\1 debug=fewsteps", script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/*/metrics.json"))) == script.count("deephash train")
    assert "not available" not in done.stderr  # of a search path


@pytest.mark.parametrize("arguments", commands("files"), ids=" ".join)
def test_runs_on_images_in_files(
    arguments: tuple[str, ...], image_files: Path, tmp_path: Path
) -> None:
    more = [f"cache_dir={tmp_path}", "evaluation.ks=[10]", "training.pretrain.batch_size=30"]
    if "dataset=image_folder" in arguments:
        more += ["training.pretrain.epochs=10", "training.hash.optimizer.lr=0.001"]
    if "experiment=image_folder_pretrained" in arguments:
        more += ["training.init.optimizer.lr=0.001"]
    if "dataset=nuswide" in arguments:
        name = next((a for a in arguments if key(a) == "protocol"), "protocol=1k-59k")
        more += {
            "protocol=1k-59k": ["protocol.queries_per_class=2", "protocol.train_per_class=4"],
            "protocol=hashnet": ["protocol.queries=20", "protocol.train=90"],
            "protocol=given": [],
        }[name]
    if "protocol=given" in arguments and "dataset=image_folder" in arguments:
        with chdir(image_files):
            invoke("data", "splits", str(tmp_path / "photos-split"), *arguments[:2])
        arguments = tuple(a.replace("photos-split", f"{tmp_path}/photos-split") for a in arguments)
    with chdir(image_files):
        train(arguments, tmp_path / "run", *more)


def invoke(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output


def test_the_data_commands_run(image_files: Path, examples: Path) -> None:
    assert [command[1] for command in DATA].count("splits") == 2
    for command in DATA:
        with chdir(examples if sets(command, "hydra.searchpath") else image_files):
            invoke(*command)
    assert len((image_files / "photos-split" / "query.txt").read_text().split()) == 6


def fewer_images(folder: Path) -> list[str]:
    """The protocol test-vs-train with a tenth of the images, by lists in this folder."""
    for name, part, count in ("query", "test", 1000), ("train", "train", 5000):
        (folder / f"{name}.txt").write_text("".join(f"{part}/{i}\n" for i in range(count)))
    lists = {"queries": "query.txt", "train": "train.txt", "database": "train.txt"}
    return ["protocol=given", *(f"protocol.{name}={at}" for name, at in lists.items())]


@pytest.mark.realdata
@pytest.mark.parametrize("arguments", commands("real"), ids=" ".join)
def test_runs_on_real_data(arguments: tuple[str, ...], data_dir: Path, tmp_path: Path) -> None:
    more = [f"cache_dir={tmp_path}", f"data_dir={data_dir.resolve()}"]
    if not sets(arguments, "protocol"):
        more += fewer_images(tmp_path)
    with chdir(tmp_path):
        try:
            train(arguments, tmp_path / "run", *more)
        except UserError as error:  # a set of torchvision that the folder does not hold
            if "downloading failed" not in str(error):
                raise
            pytest.skip(f"realdata: {error}")


@pytest.mark.realdata
def test_the_papers_arms_run_as_a_sweep(data_dir: Path, tmp_path: Path) -> None:
    (arguments,) = (a for a in TRAINING if "phases=scratch,pretrained,full" in a)
    more = [f"data_dir={data_dir.resolve()}", *fewer_images(tmp_path)]
    short = [a for a in shortened(arguments, *more) if key(a) != "phases"]
    run_program(ROOT / "train.py", "-m", arguments[-1], *short, folder=tmp_path)
    assert len(list(tmp_path.glob("runs/*/*/*/metrics.json"))) == 3


@pytest.mark.slow
def test_the_sweep_runs_and_shares_its_pretraining(tmp_path: Path) -> None:
    (sweep,) = (a for a in TRAINING if "seed=0,1,2" in a)
    assert sweep == ("-m", "dataset=cifar10", "bits=12,24,32,48", "seed=0,1,2")
    swept = sweep[2:]
    output = run_program(ROOT / "train.py", "-m", *swept, *SHORT, folder=tmp_path)
    assert len(list(tmp_path.glob("runs/*/*/*/metrics.json"))) == prod(
        len(a.split(",")) for a in swept
    )
    assert output.count("pretrain 1/1") == 3
    assert output.count("pretrain: reusing the finished pre-training") == 9
