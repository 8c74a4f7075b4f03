"""Version 0.2: its runs are resumed, and its settings are answered with their present names."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import RunProgram, compose_config
from omegaconf import OmegaConf

from deephash.experiment import renames
from deephash.experiment.run_dir import read_config
from deephash.experiment.settings import validate_settings

SAVED_CONFIGS = Path(__file__).parent / "config_0.2"  # as runs of version 0.2 wrote them

SAME_CHOICES_TODAY = {
    "digits": [
        "bits=12",
        "backbone.widths=[16,48,64]",
        "training.pretrain.epochs=3",
        "training.init.epochs=2",
        "training.hash.epochs=4",
        "trainer=cpu",
        "logger=csv",
    ],
    "nuswide": [
        "dataset=nuswide",
        "dataset.workers=4",
        "protocol.validation.fraction=0.05",
        "bits=32",
        "logger.wandb.mode=offline",
        "logger.wandb.group=night",
    ],
    "images": [
        "dataset=image_folder",
        "dataset.path=photos/list.csv",
        "dataset.label_separator=','",
        "dataset.cache_decoded=false",
        "dataset.max_invalid_fraction=0.05",
        "protocol=given",
        "protocol.max_missing_fraction=0.02",
        "protocol.validation.fraction=0.2",
        "protocol.validation.database_size=500",
        "logger=none",
    ],
}


@pytest.mark.parametrize("name", SAME_CHOICES_TODAY)
def test_saved_settings_become_those_of_today(name: str, tmp_path: Path) -> None:
    shutil.copy(SAVED_CONFIGS / f"{name}.yaml", tmp_path / "config.yaml")
    upgraded = validate_settings(OmegaConf.create(read_config(tmp_path)))
    today = compose_config(*SAME_CHOICES_TODAY[name], f"run_dir=runs/{name}")
    expected = validate_settings(today).model_dump()
    assert upgraded.model_dump() == expected


IMAGE_FOLDER = ["dataset=image_folder"]
RENAMED_SETTINGS = [  # arguments, the present name of the setting of the last one
    (["phase.hash.warmup=0.1"], "training.hash.scheduler.warmup"),
    (["phase.hash.optimizer.lr=0.1"], "training.hash.optimizer.lr"),
    (["phase.pretrain.epochs=3"], "training.pretrain.epochs"),
    (["tuning=optuna", "search.trials=3"], "tuning.trials"),
    (["validation.share=0.1"], "protocol.validation.fraction"),
    (["validation.database=100"], "protocol.validation.database_size"),
    (["validation={share:0.1}"], "protocol.validation"),
    ([*IMAGE_FOLDER, "dataset.mark=x"], "dataset.label_separator"),
    ([*IMAGE_FOLDER, "dataset.tolerated=0.1"], "dataset.max_invalid_fraction"),
    ([*IMAGE_FOLDER, "dataset.keep_decoded=false"], "dataset.cache_decoded"),
    (["protocol=given", "protocol.tolerated=0.1"], "protocol.max_missing_fraction"),
    (["protocol.queries=20"], "protocol.queries_per_class"),
    (["protocol=10-percent", "protocol.queries=0.2"], "protocol.query_fraction"),
    (["protocol.train=100"], "protocol.train_per_class"),
    (["logger.mode=offline"], "logger.wandb.mode"),
    (["logger.project=mine"], "logger.wandb.project"),
]


@pytest.mark.parametrize(
    ("arguments", "new_name"), RENAMED_SETTINGS, ids=lambda value: " ".join(value[-1:])
)
def test_an_old_setting_is_answered_with_its_new_name(
    run_program: RunProgram, arguments: list[str], new_name: str
) -> None:
    code, _, errors = run_program(*arguments)
    assert code == 2
    old_name = arguments[-1].partition("=")[0]
    assert errors == f"error: {old_name} is now {new_name}.\n"


def test_every_renamed_setting_has_an_example() -> None:
    examples = {
        (arguments[-1].partition("=")[0], new_name) for arguments, new_name in RENAMED_SETTINGS
    }
    for pattern, replacement in renames.SETTINGS:
        matches = [(re.fullmatch(pattern, old), new) for old, new in examples]
        assert any(match and match.expand(replacement) == new for match, new in matches), pattern


@pytest.mark.parametrize(("group", "choice"), renames.CHOICES, ids=lambda value: str(value))
def test_an_old_choice_is_answered_with_its_new_name(
    run_program: RunProgram, group: str, choice: str
) -> None:
    code, _, errors = run_program(f"{group}={choice}")
    assert code == 2
    assert errors == f"error: {group}={choice} is now {renames.CHOICES[group, choice]}.\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"- bits", b"a: [", b"\x89PNG\r\n\x1a\n\x00", b"phase: 3", b"phase: {}"],
    ids=["empty", "text", "list", "broken", "binary", "phase-number", "phase-empty"],
)
def test_a_config_that_is_no_run_s_is_named(
    run_program: RunProgram, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "config.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    code, _, errors = run_program(f"resume={path.parent}")
    assert code == 2
    assert errors.startswith(f"error: {path} is not the settings of a run (")
    assert errors.count("\n") == 1
    assert [path.name for path in path.parent.iterdir()] == ["config.yaml"]
