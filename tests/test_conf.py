"""Every file of conf/ composes into valid settings, and is what a Hydra user expects."""

import re
from collections.abc import Iterator
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CONF, compose_config, options
from hydra.utils import get_object
from omegaconf import OmegaConf

from deephash.cli.compose import config_groups
from deephash.core.errors import UserError
from deephash.core.instantiate import build, check_node
from deephash.experiment.settings import Settings, validate_settings
from deephash.training.optimization import PhaseOptimization
from deephash.training.settings import ClassifyPhase

FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*/*.yaml"))
LAYERS = ("recipe", "dataset_method", "experiment", "debug")


def settings_of(*overrides: str) -> Settings:
    return validate_settings(compose_config(*overrides))


@pytest.mark.parametrize("file", FILES)
def test_every_choice_is_valid(file: str) -> None:
    group, _, name = file.removesuffix(".yaml").rpartition("/")
    settings = settings_of(f"{group}={name}")
    for place in ("dataset", "backbone", "method"):
        check_node(place, getattr(settings, place))
    check_node("protocol", settings.protocol.node())
    for key, node in settings.logger.items():
        check_node(f"logger.{key}", node)
    check_node("trainer", {**settings.trainer, "precision": "32-true"})  # "auto" is the run's own
    for name, phase in settings.ordered_phases().items():
        for part in ("optimizer", "scheduler"):
            check_node(f"training.{name}.{part}", getattr(phase, part))


@pytest.mark.parametrize("file", FILES)
def test_only_layers_are_global(file: str) -> None:
    header = (CONF / file).read_text().splitlines()[0]
    assert (header == "# @package _global_") == (file.partition("/")[0] in LAYERS)


@pytest.mark.parametrize("file", FILES)
def test_defaults_stand_in_conf_alone(file: str) -> None:
    def find_targets(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from [node["_target_"]] if "_target_" in node else []
            for value in node.values():
                yield from find_targets(value)

    for target in find_targets(yaml.safe_load((CONF / file).read_text())):
        for parameter in signature(get_object(target)).parameters.values():
            is_ours = target.startswith("deephash.")
            assert not is_ours or parameter.default is Parameter.empty, f"{target}: {parameter}"


def test_every_choice_has_a_line_of_description() -> None:
    undescribed = [
        f"{group}={name}"
        for group, choices in config_groups().items()
        for name, description in choices.items()
        if len(description) < 10
    ]
    assert not undescribed


def test_no_two_choices_of_a_group_are_the_same() -> None:
    for group in config_groups():
        files = [CONF / group / f"{name}.yaml" for name in options(group)]
        contents = [yaml.safe_load(file.read_text()) for file in files]
        twins = [content for i, content in enumerate(contents) if content in contents[:i]]
        known = [{}, {"defaults": [{"override /dataset": "cifar10"}]}]  # no changes of their own
        assert not [twin for twin in twins if twin not in known]


@pytest.mark.parametrize("dataset", options("dataset"))
def test_the_command_line_wins_over_the_recipe(dataset: str) -> None:
    settings = settings_of(f"dataset={dataset}", "backbone=lenet", "training.hash.epochs=77")
    assert settings.backbone["_target_"].endswith("LeNet")
    assert settings.training["hash"].epochs == 77


def test_a_data_set_without_a_recipe_gets_the_default() -> None:
    settings = settings_of("dataset=image_folder")
    assert settings.training["pretrain"].epochs == 30
    assert settings.protocol.node()["_target_"].endswith("stratified")


def test_a_recipe_for_one_method_on_one_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "dataset_method"
    folder.mkdir()
    recipe = "# @package _global_\ntraining: { hash: { epochs: 9 } }\n"
    (folder / "mnist_joint.yaml").write_text(recipe)
    search_path = f"hydra.searchpath=[file://{tmp_path}]"
    assert settings_of("dataset=mnist", search_path).training["hash"].epochs == 9
    assert settings_of("dataset=digits", search_path).training["hash"].epochs == 3
    said = settings_of("dataset=mnist", search_path, "training.hash.epochs=4")
    assert said.training["hash"].epochs == 4


def test_an_optimizer_replaces_the_whole_node() -> None:
    chosen = OmegaConf.load(CONF / "optimizer" / "adamw.yaml")
    every = settings_of("optimizer=adamw")
    assert all(phase.optimizer == chosen for phase in every.training.values())
    one = settings_of("optimizer@training.hash.optimizer=adamw")
    recipe = settings_of()
    assert one.training["pretrain"] == recipe.training["pretrain"]
    # Of the phase's own: the rate, which the recipe says.
    assert one.training["hash"].optimizer == {**chosen, "lr": 0.02}


@pytest.mark.parametrize("scheduler", options("scheduler"))
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimizer_and_schedule_can_be_built(optimizer: str, scheduler: str) -> None:
    import torch

    settings = settings_of(f"optimizer={optimizer}", f"scheduler={scheduler}")
    for name, phase in settings.ordered_phases().items():
        made = PhaseOptimization(f"training.{name}", phase, torch.float32)
        assert 0 < made.schedule(0, 10) <= 1


def test_validation_belongs_to_the_protocol() -> None:
    for protocol in options("protocol"):
        assert 0 < settings_of(f"protocol={protocol}").protocol.validation.fraction < 0.2


def test_the_papers_arms() -> None:
    arms = {
        "full": ["pretrain", "init", "hash"],
        "pretrained": ["pretrain", "init"],
        "scratch": ["hash"],
    }
    for name, order in arms.items():
        assert settings_of(f"phases={name}").phases.order == order


def test_the_papers_experiment_uses_the_papers_net() -> None:
    settings = settings_of("experiment=cifar10_paper")
    assert settings.dataset["_target_"].endswith("cifar10")
    assert build("backbone", settings.backbone, 3, (32, 32)).num_features == 1024


def test_no_default_stands_in_the_code() -> None:
    fields = {**Settings.model_fields, **ClassifyPhase.model_fields}
    optional = [name for name, field in fields.items() if not field.is_required()]
    assert optional == ["tuning"]  # absent unless chosen


IMAGE_FOLDER_0_2 = {
    "path": "photos",
    "root": None,
    "mark": ";",
    "size": 64,
    "keep_decoded": True,
    "decoded_dir": "decoded",
    "workers": None,
    "tolerated": 0.01,
}


@pytest.mark.parametrize(
    ("group", "target", "values", "expected"),
    [
        (
            "dataset",
            "deephash.data.datasets.image_folder.image_folder",
            IMAGE_FOLDER_0_2,
            "dataset.mark is now dataset.label_separator.",
        ),
        (
            "dataset",
            "deephash.data.images.images",
            IMAGE_FOLDER_0_2,
            "dataset._target_=deephash.data.images.images is now "
            "deephash.data.datasets.image_folder.image_folder.",
        ),
        (
            "protocol",
            "deephash.data.protocols.per_class",
            {"queries": 20, "train": 100, "train_in_database": True},
            "protocol.queries is now protocol.queries_per_class.",
        ),
        ("dataset", "mylab.photos", {"mark": ";"}, None),
        ("protocol", "deephash.data.protocols.at_random", {"queries": 20, "train": 100}, None),
    ],
)
def test_an_old_name_in_a_file_of_ones_own_is_answered_with_the_new_one(
    group: str, target: str, values: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    validation = {"validation": {"fraction": 0.1, "database_size": 100}}
    node = {"_target_": target, **values, **(validation if group == "protocol" else {})}
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", f"{group}=mine"]
    if expected is None:
        settings_of(*overrides)
    else:
        with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
            settings_of(*overrides)


@pytest.mark.parametrize(
    ("override", "tags"),
    [
        ("tags=baseline", ["baseline"]),
        ("tags=[a b,c]", ["a b", "c"]),
        ("tags=['a, b']", ["a, b"]),
        ("tags=[]", []),
    ],
)
def test_tags_are_a_list_or_one(override: str, tags: list[str]) -> None:
    assert settings_of(override).tags == tags


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tags=''", "at least 1 character"),
        (f"tags={'x' * 65}", "at most 64 characters"),
        ("tags=[{a: 1}]", "tags.*0.*="),
        ("tags=null", "tags="),
    ],
)
def test_what_cannot_be_tags_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_of(override)
