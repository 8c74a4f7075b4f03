"""Hints that name what is near in meaning: each names settings and choices that there are."""

import re

import pytest
from conftest import compose_config
from omegaconf import OmegaConf

from deephash.cli.compose import config_groups
from deephash.experiment.hints import MEANINGS, find_meaning


@pytest.mark.parametrize(("words", "answer"), MEANINGS)
def test_a_hint_names_what_there_is(words: str, answer: str) -> None:
    cfg = compose_config("logger=wandb", "dataset=image_folder")
    groups = config_groups()
    for word in words.split():
        text = find_meaning(word).replace("<phase>", "hash")
        for name in re.findall(r"(?<!\+)\b[a-z_]+(?:\.[a-z_]+)+", text):
            if name.startswith("training.hash.optimizer."):
                continue  # which settings there are depends on the choice
            found = OmegaConf.select(cfg, name, throw_on_missing=False, default="absent")
            assert found != "absent", name
        for group, choice in re.findall(r"\b([a-z_]+)=([a-z_0-9]+)", text):
            assert choice in groups[group], f"{group}={choice}"
        for name in re.findall(r"\bUse ([a-z_]+)\.$", text):
            assert name in cfg, name


def test_each_word_has_one_meaning() -> None:
    words = [word for words, _ in MEANINGS for word in words.split()]
    assert len(words) == len(set(words))


def test_the_phase_that_is_named_is_kept() -> None:
    assert find_meaning("training.init.epochs_") == ""
    assert find_meaning("training.init.num_epochs") == "Use training.init.epochs."
    assert find_meaning("training.num_epochs") == "Use training.<phase>.epochs."
