"""The runs of the benchmarks are valid, and the tables are those of the stored measurements."""

import json

import pytest
from conftest import options

from benchmarks.machine import RESULTS
from benchmarks.quality import ablation, cells, grid, own_images
from benchmarks.speed import startup
from deephash.cli.compose import compose_config
from deephash.core.instantiate import check_node
from deephash.experiment.settings import validate_settings

ROWS = [recipe for rows in grid.TABLES.values() for recipe in rows.values()]
ROWS += own_images.ROWS.values()
CHANGES = [
    [*study.base, *changes]
    for study in ablation.STUDIES.values()
    for changes in study.changes.values()
]


@pytest.mark.parametrize("overrides", [*ROWS, *CHANGES], ids=" ".join)
def test_settings_of_every_run_are_valid(overrides: list[str]) -> None:
    settings = validate_settings(compose_config(overrides))
    check_node("backbone", settings.backbone)
    check_node("method", settings.method)
    for name, phase in settings.ordered_phases().items():
        check_node(f"training.{name}.optimizer", phase.optimizer)


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_has_a_row(name: str) -> None:
    assert any(recipe[0] == f"experiment={name}" for recipe in ROWS)


def test_every_change_of_a_study_changes_the_settings() -> None:
    for study in ablation.STUDIES.values():
        keys = {cells.settings_key([*study.base, *changes]) for changes in study.changes.values()}
        assert len(keys) == len(study.changes)


@pytest.mark.parametrize(
    "override",
    [
        "data_dir=elsewhere",
        "dataset.data_dir=elsewhere",
        "logger=none",
        "tags=[a]",
        "tuning=optuna",
    ],
)
def test_key_ignores_what_cannot_change_a_result(override: str) -> None:
    key = cells.settings_key(["dataset=cifar10"])
    assert cells.settings_key(["dataset=cifar10", override]) == key


def test_key_ignores_phases_that_a_run_does_not_have() -> None:
    pretrained = ["dataset=cifar10", "phases=pretrained"]
    changed = [*pretrained, "training.hash.epochs=9"]
    assert cells.settings_key(changed) == cells.settings_key(pretrained)


@pytest.mark.parametrize(
    "override",
    [
        "training.hash.optimizer.lr=0.1",
        "training.hash.scheduler.warmup=0",
        "scheduler=cosine",
        "protocol.validation.fraction=0.2",
        "augment.flip=false",
        "seed=1",
    ],
)
def test_key_depends_on_settings(override: str) -> None:
    key = cells.settings_key(["dataset=cifar10"])
    assert cells.settings_key(["dataset=cifar10", override]) != key


@pytest.mark.parametrize("table", grid.TABLES)
def test_quality_tables_show_current_cells(table: str) -> None:
    stored = cells.load_cells(table)
    assert cells.current_cells(table, grid.runs(table)) == stored
    assert (RESULTS / f"{table}.md").read_text() == grid.markdown(table, stored)


def test_ablation_table_shows_current_cells() -> None:
    stored = cells.load_cells("ablation")
    assert cells.current_cells("ablation", ablation.runs(ablation.STUDIES)) == stored
    assert (RESULTS / "ablation.md").read_text() == ablation.markdown(stored)


def test_own_images_table_shows_current_cells() -> None:
    stored = cells.load_cells("own_images")
    assert cells.current_cells("own_images", own_images.runs()) == stored
    assert (RESULTS / "own_images.md").read_text() == own_images.markdown(stored)


@pytest.mark.parametrize("table", [*grid.TABLES, "ablation", "own_images"])
def test_commands_are_those_of_the_runs(table: str) -> None:
    runs = {
        "ablation": ablation.runs(ablation.STUDIES),
        "own_images": own_images.runs(),
        **{name: grid.runs(name) for name in grid.TABLES},
    }[table]
    for name, cell in cells.load_cells(table).items():
        assert cell["command"] == " ".join(["python train.py", *runs[name]])


def test_startup_table_shows_the_stored_cells() -> None:
    results = json.loads((RESULTS / "startup.json").read_text())
    assert (RESULTS / "startup.md").read_text() == startup.markdown(results)


def test_a_row_shows_mean_deviation_and_number_of_seeds() -> None:
    conditions = {"machine": "here", "threads": 2}

    def make_cell(value: float, seconds: float) -> dict[str, object]:
        return {"map": value, "seconds": seconds, "pretrain_seconds": 60, **conditions}

    table = {
        "MNIST, LeNet, 12 bits, seed 0": make_cell(0.98, 120),
        "MNIST, LeNet, 12 bits, seed 1": make_cell(0.99, 60),
        "MNIST, LeNet, 24 bits, seed 0": make_cell(0.97, 100),
        "MNIST, LeNet, 32 bits, seed 0": make_cell(0.97, 90),
        "MNIST, LeNet, 48 bits, seed 0": make_cell(0.97, 120),
    }
    lines = grid.markdown("quality", table).splitlines()
    row = [
        "MNIST, LeNet",
        "0.9850 ± 0.0071 (2)",
        "0.9700 (1)",
        "0.9700 (1)",
        "0.9700 (1)",
        "",
        "2.0 min",
        "2",
        f"{cells.training_petaflop(['dataset=mnist']):.2f}",
    ]
    assert f"| {' | '.join(row)} |" in lines
    # 60 s of pre-training once, and 60, 40, 30, 60 s of the runs alone: 250 s, over 120 s.
    sweep = "Time of a sweep over 12, 24, 32, 48 bits, which pre-trains once, as a multiple of its"
    assert f"{sweep} longest run: MNIST, LeNet 2.08." in lines
    assert lines[-1] == "here"


def test_the_table_shows_the_gain_by_pretraining() -> None:
    values_by_arm = {"full": (0.80, 0.82), "scratch": (0.75, 0.79)}
    table = {
        f"CIFAR-10, cifar_quick, {arm}, 12 bits, seed {seed}": {
            "map": value,
            "seconds": 60,
            "pretrain_seconds": 0,
            "machine": "here",
            "threads": 1,
        }
        for arm, values in values_by_arm.items()
        for seed, value in enumerate(values)
    }
    lines = grid.markdown("quality", table).splitlines()
    assert any(line.endswith("of all layers: 0.040 at 12 bits.") for line in lines)


def test_petaflop_counts_the_layers_of_lenet() -> None:
    multiply_adds = 20 * 5 * 5 * 24 * 24 + 50 * 20 * 5 * 5 * 8 * 8 + 800 * 500
    images = 60_000 * 0.98 * (5 + 15)
    operations = 3 * 2 * images * multiply_adds
    assert cells.training_petaflop(["dataset=mnist"]) == pytest.approx(operations / 1e15, rel=1e-9)
