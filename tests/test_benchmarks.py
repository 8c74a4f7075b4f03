"""The runs that benchmarks are made of are valid, and tables are those of their figures."""

import ablation
import own_images
import pytest
import quality
from conftest import composed, options
from machine import RESULTS
from training import current_cells, finished_cells, petaflop, settings_of

from deephash.experiment.settings import checked

ROWS = [recipe for rows in quality.TABLES.values() for recipe in rows.values()]
ROWS += own_images.ROWS.values()
CHANGES = [
    [*study.base, *changed]
    for study in ablation.STUDIES.values()
    for changed in study.changes.values()
]


@pytest.mark.parametrize("overrides", [*ROWS, *CHANGES], ids=" ".join)
def test_the_settings_of_each_run_are_valid(overrides: list[str]) -> None:
    checked(composed(*overrides))


@pytest.mark.parametrize("name", options("experiment"))
def test_each_experiment_has_a_row(name: str) -> None:
    assert any(recipe[0] == f"experiment={name}" for recipe in ROWS)


def test_each_change_of_a_study_changes_something() -> None:
    for study in ablation.STUDIES.values():
        settings = {settings_of([*study.base, *changed]) for changed in study.changes.values()}
        assert len(settings) == len(study.changes)


def test_settings_are_told_apart_but_for_places() -> None:
    base = settings_of(["dataset=cifar10"])
    assert settings_of(["dataset=cifar10", "data_dir=elsewhere", "logger=none"]) == base
    assert settings_of(["dataset=cifar10", "phase.hash.optimizer.lr=0.1"]) != base
    assert settings_of(["dataset=cifar10", "seed=1"]) != base
    pretrained = settings_of(["dataset=cifar10", "phases=pretrained"])
    assert (
        settings_of(["dataset=cifar10", "phases=pretrained", "phase.hash.epochs=9"]) == pretrained
    )


@pytest.mark.parametrize("table", quality.TABLES)
def test_quality_tables_show_cells_of_the_settings_of_today(table: str) -> None:
    cells = finished_cells(table)
    assert current_cells(table, quality.runs(table)) == cells
    assert (RESULTS / f"{table}.md").read_text() == quality.markdown(table, cells)


def test_the_ablation_shows_cells_of_the_settings_of_today() -> None:
    cells = finished_cells("ablation")
    assert current_cells("ablation", ablation.runs(ablation.STUDIES)) == cells
    assert (RESULTS / "ablation.md").read_text() == ablation.markdown(cells)


def test_the_table_of_own_images_shows_cells_of_the_settings_of_today() -> None:
    cells = finished_cells("own_images")
    assert current_cells("own_images", own_images.runs()) == cells
    assert (RESULTS / "own_images.md").read_text() == own_images.markdown(cells)


def test_a_row_shows_mean_spread_and_number_of_seeds() -> None:
    where = {"machine": "here", "threads": 2}

    def cell(value: float, seconds: float) -> dict[str, object]:
        return {"map": value, "seconds": seconds, "pretrain_seconds": 60, **where}

    cells = {
        "MNIST, LeNet, 12 bits, seed 0": cell(0.98, 120),
        "MNIST, LeNet, 12 bits, seed 1": cell(0.99, 60),
        "MNIST, LeNet, 24 bits, seed 0": cell(0.97, 100),
        "MNIST, LeNet, 32 bits, seed 0": cell(0.97, 90),
        "MNIST, LeNet, 48 bits, seed 0": cell(0.97, 120),
    }
    lines = quality.markdown("quality", cells).splitlines()
    row = [
        "MNIST, LeNet",
        "0.9850 ± 0.0071 (2)",
        "0.9700 (1)",
        "0.9700 (1)",
        "0.9700 (1)",
        "",
        "2.0 min",
        "2",
        f"{petaflop(['dataset=mnist']):.2f}",
    ]
    assert f"| {' | '.join(row)} |" in lines
    # 60 s of pre-training once, and 60, 40, 30, 60 s of the runs alone: 250 s, over 120 s.
    sweep = "A sweep over 12, 24, 32, 48 bits, which pre-trains once, in times of its longest run"
    assert f"{sweep}: MNIST, LeNet 2.08." in lines
    assert lines[-1] == "here"


def test_the_table_says_what_pretraining_pays() -> None:
    values = {"full": (0.80, 0.82), "scratch": (0.75, 0.79)}
    cells = {
        f"CIFAR-10, cifar_quick, {arm}, 12 bits, seed {seed}": {
            "map": value, "seconds": 60, "pretrain_seconds": 0, "machine": "here", "threads": 1
        }
        for arm, of_arm in values.items()
        for seed, value in enumerate(of_arm)
    }  # fmt: skip
    lines = quality.markdown("quality", cells).splitlines()
    assert any(line.endswith("of all layers: 0.040 at 12 bits.") for line in lines)


def test_operations_are_those_of_lenets_layers() -> None:
    multiply_adds = 20 * 5 * 5 * 24 * 24 + 50 * 20 * 5 * 5 * 8 * 8 + 800 * 500
    images = 60_000 * 0.98 * (5 + 15)
    operations = 3 * 2 * images * multiply_adds
    assert petaflop(["dataset=mnist"]) == pytest.approx(operations / 1e15, rel=1e-9)
