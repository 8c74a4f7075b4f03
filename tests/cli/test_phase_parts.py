"""One optimizer or scheduler for every phase: what is replaced, kept, logged and shown."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import compose_config
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from deephash.cli.compose import prepare_arguments
from deephash.cli.train import main
from deephash.core.errors import UserError

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.05}


@pytest.fixture
def own(tmp_path: Path) -> str:
    """An argument that adds experiments with a rate and a warm-up of their own."""
    (tmp_path / "experiment").mkdir()
    values = "training: { hash: { optimizer: { lr: 0.5 }, scheduler: { warmup: 0.4 } } }\n"
    for name, defaults in ("plain", ""), ("choosing", "defaults: [{override /optimizer: adamw}]\n"):
        file = tmp_path / "experiment" / f"{name}.yaml"
        file.write_text(f"# @package _global_\n{defaults}{values}")
    return f"hydra.searchpath=[file://{tmp_path}]"


@pytest.mark.parametrize(
    ("overrides", "node"),
    [
        (["training.hash.optimizer.lr=0.01"], {**ADAMW, "lr": 0.01}),
        (["training.hash.optimizer={lr: 0.01}"], {**ADAMW, "lr": 0.01}),
        (["+training.hash.optimizer.eps=1e-6"], {**ADAMW, "eps": 1e-6}),
        (["optimizer.lr=0.02", "training.hash.optimizer.lr=0.01"], {**ADAMW, "lr": 0.01}),
        (["training.hash={epochs:7,optimizer:{lr:0.01}}"], {**ADAMW, "lr": 0.01}),
        (["training={hash:{optimizer:{lr:0.01}}}"], {**ADAMW, "lr": 0.01}),
        (["training.hash.epochs=7"], ADAMW),
    ],
)
def test_the_command_line_wins_for_one_phase(overrides: list[str], node: dict[str, Any]) -> None:
    training = compose_config("optimizer=adamw", *overrides).training
    assert training.hash.optimizer == node
    lr = 0.02 if "optimizer.lr=0.02" in overrides else 1e-3
    assert training.pretrain.optimizer == {**ADAMW, "lr": lr}


def test_a_choice_for_one_phase_wins_over_one_for_all() -> None:
    cfg = compose_config("optimizer=adamw", "optimizer@training.hash.optimizer=adam")
    assert cfg.training.hash.optimizer._target_ == "torch.optim.Adam"
    assert cfg.training.init.optimizer == ADAMW


def test_a_sweep_may_set_what_its_choices_have_in_common() -> None:
    """Hydra composes the choices of a sweep one by one; before, there is nothing to override."""
    arguments = ["-m", "optimizer=adamw,sgd", "optimizer.lr=0.003", "bits=12"]
    assert prepare_arguments(arguments)[1:] == [arguments[1], "++optimizer.lr=0.003", "bits=12"]
    arguments = ["-m", "optimizer=adamw", "optimizer.lr=0.003,0.01"]
    assert prepare_arguments(arguments)[1:] == arguments[1:]


def test_a_setting_without_a_choice_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer.lr: no optimizer is chosen for all phases"):
        compose_config("++optimizer.lr=0.4")


def test_what_an_experiment_sets_is_replaced_and_told(
    own: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deephash")
    cfg = compose_config(own, "experiment=plain", "optimizer=adamw", "phases=scratch")
    assert cfg.training.hash.optimizer == ADAMW
    assert cfg.training.hash.scheduler.warmup == 0.4
    (line,) = caplog.messages
    assert line.startswith("training.hash.optimizer: AdamW lr=0.001 weight_decay=0.05, in place of")
    assert "SGD lr=0.5 " in line
    caplog.clear()
    assert compose_config(own, "experiment=choosing").training.hash.optimizer == ADAMW
    assert [" lr=0.5 " in message for message in caplog.messages] == [False, False, True]


@pytest.mark.parametrize("options", [[], ["--resolve"], ["--package", "training.hash"]])
def test_cfg_job_shows_what_will_run(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    GlobalHydra.instance().clear()
    overrides = ["optimizer=adamw", "training.hash.optimizer.lr=0.01"]
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides, "--cfg", "job", *options])
    main()
    shown = OmegaConf.create(capsys.readouterr().out)
    assert "optimizer" not in shown or "--package" in options
    phase = shown if "--package" in options else shown.training.hash
    assert phase.optimizer == {**ADAMW, "lr": 0.01}
