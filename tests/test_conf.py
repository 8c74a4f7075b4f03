"""Every file of conf/ composes into valid settings, and every named target exists."""

import pytest
from conftest import CONF, composed, options

from deephash.core.instantiate import build, check_node
from deephash.experiment.settings import checked

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
CHOICES = [f"{group}={name}" for group in GROUPS for name in options(group)]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_valid(choice: str) -> None:
    settings = checked(composed(choice))
    for place in ("dataset", "protocol", "backbone", "method", "logger"):
        check_node(place, getattr(settings, place))
    check_node("trainer", {**settings.trainer, "precision": "32-true"})  # "auto" is the run's own
    for phase in settings.ordered_phases().values():
        check_node("optimizer", phase.optimizer)


@pytest.mark.parametrize("dataset", options("dataset"))
def test_a_data_set_brings_its_recipe_and_the_command_line_wins(dataset: str) -> None:
    assert dataset in options("recipe")
    chosen = checked(composed(f"dataset={dataset}", "backbone=lenet", "phase.hash.epochs=77"))
    assert chosen.backbone["_target_"].endswith("LeNet")
    assert chosen.phase["hash"].epochs == 77


def test_the_papers_arms() -> None:
    arms = {name: checked(composed(f"phases={name}")).phases.order for name in options("phases")}
    assert arms == {
        "full": ["pretrain", "init", "hash"],
        "pretrained": ["pretrain", "init"],
        "scratch": ["hash"],
    }


def test_the_papers_experiment_uses_the_papers_net() -> None:
    settings = checked(composed("experiment=cifar10_paper"))
    assert settings.dataset["_target_"].endswith("cifar10")
    assert build("backbone", settings.backbone, 3, (32, 32)).num_features == 1024
