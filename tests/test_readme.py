"""README.md and docs/: every command runs or is valid, every figure is that of a benchmark.

Commands that need GPUs, a cluster or hours are composed and validated; the others run, shortened.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import QUICK, ROOT, options
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from sample_images import sample_nuswide_labels, write_class_folders, write_official_nuswide
from typer.testing import CliRunner

from deephash.cli.compose import compose_config, config_groups
from deephash.cli.entry import app
from deephash.core.instantiate import check_node
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.experiment import plots, renames
from deephash.experiment.run import run
from deephash.experiment.settings import validate_settings
from deephash.training.optimization import PhaseOptimization

README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

LINES = [
    line
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line and not line.startswith("#")
]
WORDS = list(dict.fromkeys(tuple(shlex.split(line)) for line in LINES))
TRAINING = [
    words[words.index(program) + 1 :]
    for words in WORDS
    for program in ("train.py", "train")
    if program in words and not {"--cfg", "pip"} & set(words)
]
DATA = [words[1:] for words in WORDS if words[:2] == ("deephash", "data")]
OTHER_PROGRAMS = {"git", "pip", "mkdir", "touch", "export"}
EXAMPLES = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
TABLES = [
    (p, t) for p in DOCUMENTS for t in re.findall(r"<!-- (benchmarks/\S+) -->", p.read_text())
]

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
    with chdir(folder):
        yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `photos`, `photos.csv`, lists, and a small NUS-WIDE."""
    folder = tmp_path_factory.mktemp("files")
    photos = sorted(write_class_folders(folder / "photos", per_class=30).rglob("*.jpg"))
    rows = [
        f"{path.relative_to(folder)},{'test' if i % 5 == 0 else 'train'},{'x;y' if i % 3 else 'x'}"
        for i, path in enumerate(photos)
    ]
    (folder / "photos.csv").write_text("\n".join(["file,split,labels", *rows]))
    ids = [path.relative_to(folder / "photos").as_posix() for path in photos]
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
    with chdir(folder):
        yield folder


def test_every_command_is_known() -> None:
    programs = {words[0] for words in WORDS if words not in TRAINING}
    assert programs == {"python", "deephash", "torchrun", "srun", *OTHER_PROGRAMS}
    assert len(TRAINING) > 40
    assert all(len(commands(kind)) > 3 for kind in ("digits", "examples", "files", "real"))


def test_the_first_screen_installs_runs_and_tests() -> None:
    url = PROJECT["urls"]["Homepage"]
    installs = [line for line in LINES if line.startswith("pip install")]
    assert LINES[0] == f"git clone {url} && cd {url.rpartition('/')[2]}"
    assert installs[0] == "pip install -e . && python train.py"
    assert installs[1] == "pip install -e '.[dev]' && pytest"
    extras = re.findall(r"pip install (?:-e )?'(?:\.|deephash)\[(\w+)\]'", TEXT + CHANGELOG)
    assert {*extras} - {"search"} <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_settings_of_each_command_are_valid(arguments: tuple[str, ...], examples: Path) -> None:
    given = tuple(a for a in arguments if not a.startswith("resume="))
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
    train(arguments, tmp_path / "run", f"cache_dir={tmp_path}")


@pytest.mark.parametrize("arguments", commands("files"), ids=" ".join)
def test_runs_on_images_in_files(
    arguments: tuple[str, ...], image_files: Path, tmp_path: Path
) -> None:
    more = [f"cache_dir={tmp_path}", "evaluation.ks=[10]", "training.pretrain.batch_size=30"]
    if "dataset=image_folder" in arguments:
        more += ["training.pretrain.epochs=10", "training.hash.optimizer.lr=0.001"]
    if "dataset=nuswide" in arguments:
        name = next((a for a in arguments if key(a) == "protocol"), "protocol=1k-59k")
        more += {
            "protocol=1k-59k": ["protocol.queries_per_class=2", "protocol.train_per_class=4"],
            "protocol=hashnet": ["protocol.queries=20", "protocol.train=90"],
            "protocol=given": [],
        }[name]
    if "protocol=given" in arguments and "dataset=image_folder" in arguments:
        invoke("data", "splits", f"split-{tmp_path.name}", *arguments[:2])
        arguments = tuple(a.replace("photos-split", f"split-{tmp_path.name}") for a in arguments)
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
    """The protocol test-vs-train with a tenth of the images."""
    for name, part, count in ("query", "test", 1000), ("train", "train", 5000):
        (folder / f"{name}.txt").write_text("".join(f"{part}/{i}\n" for i in range(count)))
    lists = {"queries": "query.txt", "train": "train.txt", "database": "train.txt"}
    return ["protocol=given", *(f"protocol.{name}={folder / at}" for name, at in lists.items())]


@pytest.mark.realdata
@pytest.mark.parametrize("arguments", commands("real"), ids=" ".join)
def test_runs_on_real_data(arguments: tuple[str, ...], data_dir: Path, tmp_path: Path) -> None:
    more = [f"cache_dir={tmp_path}", f"data_dir={data_dir.resolve()}"]
    if not sets(arguments, "protocol"):
        more += fewer_images(tmp_path)
    train(arguments, tmp_path / "run", *more)


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
    assert output.count("pretrain: found finished") == 9


@pytest.mark.parametrize(("document", "path"), TABLES, ids=lambda value: str(value)[-30:])
def test_tables_are_those_of_the_benchmarks(document: Path, path: str) -> None:
    shown = document.read_text().split(f"<!-- {path} -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == (ROOT / path).read_text().strip()
    assert shown.strip()


def test_every_table_is_shown_or_linked() -> None:
    for table in (ROOT / "benchmarks" / "results").glob("*.md"):
        assert f"benchmarks/results/{table.name}" in TEXT, table.name


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda path: path.name,
)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE) if heading else []
        names = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
        assert not heading or heading in names, link


def test_settings_and_choices_named_in_the_text_exist() -> None:
    def names(node: Any, prefix: str = "") -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from names(value, f"{prefix}{name}.")

    valid: set[str] = set()
    for group in ("dataset", "protocol", "backbone"):
        for choice in options(group):
            valid |= {*names(OmegaConf.to_container(compose_config([f"{group}={choice}"])))}
    valid |= {*names(OmegaConf.to_container(compose_config(["tuning=optuna"])))}
    groups = config_groups()
    for name, equals, value in re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)(=?)([^`\s]*)`", TEXT):
        top = name.partition(".")[0]
        if name in groups and equals and re.fullmatch(r"[\w-]+", value):
            assert value in groups[name], f"{name}={value}"
        elif top in {n.partition(".")[0] for n in valid} and "." in name and top != "hydra":
            assert name in valid, name


def test_the_changelog_has_every_renamed_setting() -> None:
    for (group, name), new in renames.CHOICES.items():
        assert f"`{group}={name}`" in CHANGELOG.replace("`, `", "` `")
        assert new in CHANGELOG
    nodes = {"dataset": renames.DATASET_SETTINGS}
    for place, names in [
        *nodes.items(),
        *(("protocol", n) for n in renames.PROTOCOL_SETTINGS.values()),
    ]:
        for old, new in names.items():
            assert re.search(rf"`{place}\.{old}`.*\| `{place}\.{new}`", CHANGELOG), old


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]
    assert f"version = {{{PROJECT['version']}}}" in README
    assert f"## {PROJECT['version']}" in CHANGELOG
