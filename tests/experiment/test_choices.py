"""Optimizers, schedules, parameter groups and debug runs, chosen on the command line."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ComposeRun, compose_config
from omegaconf import OmegaConf

from deephash.core.errors import UserError
from deephash.experiment.run import run
from deephash.experiment.settings import validate_settings
from deephash.training.callbacks import CurveRecorder
from deephash.training.modules import HashingModule

pytestmark = pytest.mark.usefixtures("light_runs")

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.05}
COSINE = {"_target_": "deephash.training.schedules.cosine", "warmup": 0.1}
SMALL = ["phases=scratch", "backbone.widths=[16,48,64]"]


def phase_nodes(group: str, *overrides: str) -> dict[str, dict[str, Any]]:
    """The optimizer or scheduler of each phase, by name."""
    training = validate_settings(compose_config(*overrides)).training
    return {name: getattr(phase, group) for name, phase in training.items()}


@pytest.mark.parametrize(
    ("choice", "node"), [("optimizer=adamw", ADAMW), ("scheduler=cosine", COSINE)]
)
def test_a_choice_for_all_phases_replaces_the_whole_node(choice: str, node: dict) -> None:
    group = choice.partition("=")[0]
    for dataset in ("digits", "cifar10"):
        nodes = phase_nodes(group, choice, f"dataset={dataset}")
        assert nodes == dict.fromkeys(("pretrain", "init", "hash"), node)


def test_a_choice_for_one_phase_leaves_the_others(compose_run: ComposeRun) -> None:
    defaults = phase_nodes("optimizer")
    nodes = phase_nodes("optimizer", "optimizer@training.hash.optimizer=adamw")
    assert nodes["hash"]["_target_"] == "torch.optim.AdamW"
    assert "momentum" not in nodes["hash"]
    assert {name: nodes[name] for name in ("pretrain", "init")} == {
        name: defaults[name] for name in ("pretrain", "init")
    }
    nodes = phase_nodes("scheduler", "scheduler@training.init.scheduler=constant")
    targets = [node["_target_"].rpartition(".")[2] for node in nodes.values()]
    assert targets == ["linear", "constant", "linear"]


def test_chosen_optimization_is_used_and_saved(
    compose_run: ComposeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[list[float]] = []

    def record_rates(recorder: CurveRecorder, trainer: Any, *args: Any) -> None:
        (optimizer,) = trainer.optimizers
        assert isinstance(optimizer, torch.optim.AdamW)
        rates.append([group["lr"] for group in optimizer.param_groups])

    monkeypatch.setattr(CurveRecorder, "on_train_batch_start", record_rates)
    groups = "training.hash.param_groups={backbone.backbone:{lr:1e-4,weight_decay:0}}"
    cfg = compose_run("phases=scratch", "optimizer=adamw", "scheduler=cosine", groups)
    run(cfg)
    saved = OmegaConf.load(Path(cfg.run_dir) / "config.yaml")
    assert "optimizer" not in saved
    assert saved.training.hash.optimizer == ADAMW
    assert saved.training.hash.scheduler == COSINE
    assert saved.training.hash.param_groups == {
        "backbone.backbone": {"lr": 1e-4, "weight_decay": 0}
    }
    others, backbone = map(list, zip(*rates, strict=True))
    assert max(others) == pytest.approx(1e-3)
    assert others[-1] < 0.02 * max(others)  # half a cosine
    assert backbone == pytest.approx([rate / 10 for rate in others])


def test_a_prefix_of_no_parameter_is_refused(compose_run: ComposeRun) -> None:
    cfg = compose_run("phases=scratch", "training.hash.param_groups={backbon:{lr:1e-4}}")
    with pytest.raises(
        UserError, match=r"training.hash.param_groups.backbon: no .* Did you mean 'backbone'\?"
    ):
        run(cfg)


def test_fewsteps_takes_three_steps_of_each_phase(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    overrides = ["debug=fewsteps", "backbone.widths=[16,48,64]", "logger=csv", f"run_dir={folder}"]
    cfg = compose_config(*overrides)
    assert cfg.cache_dir == f"{folder}/pretrained"
    run(cfg)
    steps = {
        name: torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("pretrain", "init", "hash")
    }
    assert steps == {"pretrain": 3, "init": 3, "hash": 3}
    assert json.loads((folder / "metrics.json").read_text())["test"]["map"] > 0


def test_debug_runs_log_nothing_and_lie_apart() -> None:
    settings = validate_settings(compose_config("debug=default"))
    assert settings.logger == {}
    assert settings.trainer["detect_anomaly"] is True
    assert validate_settings(compose_config("debug=default", "logger=csv")).logger.keys() == {"csv"}


def test_overfit_fits_a_few_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    batches = []
    training_step = HashingModule.training_step

    def record_batch(module: HashingModule, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        if module._trainer:  # not when the method is tried
            batches.append(batch["indices"].sort().values.tolist())
        return training_step(module, batch, batch_idx)

    monkeypatch.setattr(HashingModule, "training_step", record_batch)
    folder = tmp_path / "run"
    small = "backbone.widths=[16,48,64]"
    assert run(compose_config("debug=overfit", small, "logger=csv", f"run_dir={folder}")) > 0.9
    assert batches == [batches[0]] * 60  # of two phases; one batch an epoch
    assert len(batches[0]) == 90  # ten of each class, but for those held out for validation
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = {
        phase: [float(row[f"{phase}/loss"]) for row in rows if row[f"{phase}/loss"]]
        for phase in ("pretrain", "init", "hash")
    }
    assert losses["pretrain"][-1] < 0.01 * losses["pretrain"][0]
    assert losses["init"][-1] < 0.8 * losses["init"][0]  # the floor of this loss is not zero
    assert losses["hash"][-1] < losses["init"][-1]


@pytest.mark.parametrize("limit", ["limit_train_batches=2", "limit_val_batches=1"])
def test_batches_can_be_limited(limit: str, compose_run: ComposeRun, tmp_path: Path) -> None:
    run(compose_run("phases=scratch", "logger=csv", f"+trainer.{limit}"))
    with (tmp_path / "run" / "curves.csv").open() as file:
        steps = {int(float(row["step"])) for row in csv.DictReader(file)}
    assert (max(steps) == 2) == limit.startswith("limit_train")


def test_profiler_reports_each_phase(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    profilers = logging.getLogger("pytorch_lightning.profilers")
    profilers.addHandler(caplog.handler)
    try:
        run(compose_config("debug=profiler", *SMALL, f"run_dir={tmp_path / 'run'}"))
    finally:
        profilers.removeHandler(caplog.handler)
    assert "FIT Profiler Report" in caplog.text
    assert "HashingModule.optimizer_step" in caplog.text
