"""Trainings that go wrong: each ends with a sentence that says what to change."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import ComposeRun
from wandb.sdk.lib.exit_hooks import ExitHooks

from deephash.core.errors import UserError
from deephash.experiment.failures import explain_failures
from deephash.experiment.run import run
from deephash.methods.base import HashBatch
from deephash.methods.joint import Joint

pytestmark = pytest.mark.usefixtures("light_runs")


def test_a_diverging_loss_stops_the_run(compose_run: ComposeRun) -> None:
    diverging = ["training.hash.optimizer.lr=1e30", "training.hash.scheduler.warmup=0"]
    with pytest.raises(UserError, match=r"hash: the loss became .* Lower training.hash.optimizer"):
        run(compose_run("phases=scratch", *diverging))


@pytest.mark.parametrize("is_run", [False, True])
def test_out_of_memory_names_a_resume_where_there_is_a_run(is_run: bool, tmp_path: Path) -> None:
    if is_run:
        (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError) as raised, explain_failures(tmp_path, "allow=[mylab]"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert ("Or share the batches among several GPUs: " in str(raised.value)) == is_run
    assert (f"resume={tmp_path} trainer=ddp allow=[mylab]" in str(raised.value)) == is_run


@pytest.mark.parametrize(
    ("settings", "state", "error", "message"),
    [
        ({"capturable": True}, {}, UserError, "optimizer: torch refuses its settings: .* devices"),
        ({"foreach": True, "differentiable": True}, {}, UserError, "settings: .* autograd"),
        ({"differentiable": True}, {}, UserError, "settings: .* in-place"),
        ({}, {"exp_avg": torch.zeros(7)}, RuntimeError, "^The size of tensor"),
        ({}, {"exp_avg": None}, AttributeError, "NoneType"),
    ],
    ids=["capturable", "foreach", "in-place", "another size", "none"],
)
def test_damaged_state_of_an_optimizer_is_no_refusal_of_its_settings(
    settings: dict[str, bool],
    state: dict[str, object],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], **settings)
    parameter.grad = torch.ones(3)
    if state:
        optimizer.step()
        optimizer.state[parameter].update(state)
    with pytest.raises(error, match=message), explain_failures(tmp_path):
        optimizer.step()


class FaultyMethod(Joint):
    """A method with one fault."""

    def __init__(self, num_features: int, bits: int, num_classes: int, *, fault: str) -> None:
        width = bits + (fault == "width")
        super().__init__(
            num_features, width, num_classes, surrogate="bilinear", tau=2.0, balanced=True
        )
        self.fault = fault

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits = super().forward(features)
        return logits if self.training or self.fault != "nan" else logits * torch.nan

    def loss(self, batch: HashBatch) -> dict[str, torch.Tensor]:
        if self.fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")
        if self.fault == "exit":
            sys.exit("no pairs")
        return super().loss(batch)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "width",
            r"FaultyMethod.forward returns a tensor of shape \((\d+), 49\); it .* \(\1, 48\)",
        ),
        ("nan", "The logits of validation images are NaN"),
        ("exit", r"sys.exit\('no pairs'\) was called in .*test_failures.py, line \d+, in loss"),
        ("memory", r"CUDA out of memory\. Lower training\.<phase>\.batch_size .* in a new run\.$"),
    ],
)
def test_a_faulty_method_is_explained(
    compose_run: ComposeRun, fault: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "exit", sys.exit)  # restored afterwards
    ExitHooks().hook()  # as wandb.init does
    cfg = compose_run("phases=scratch")
    cfg.method = {"_target_": f"{__name__}.FaultyMethod", "fault": fault}
    with pytest.raises(UserError, match=message):
        run(cfg)


@pytest.mark.parametrize("fault", ["width", "exit"])
def test_a_faulty_method_is_found_before_the_pre_training(
    compose_run: ComposeRun, fault: str, tmp_path: Path
) -> None:
    cfg = compose_run("phases=full")
    cfg.method = {"_target_": f"{__name__}.FaultyMethod", "fault": fault}
    with pytest.raises(UserError, match=r"FaultyMethod.forward|sys.exit"):
        run(cfg)
    assert not list(tmp_path.iterdir())  # neither a run nor a shared pre-training


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("+trainer.val_check_interval=1000", "trainer: Lightning refuses its settings: .*1000"),
        ("training.hash.optimizer.lr=1e308", "training.<phase>.optimizer: torch refuses its sett"),
        ("+logger.own={_target_:builtins.print}", "logger.own._target_=builtins.print makes"),
        ("method.tau=1e308", r"trainer.detect_anomaly=true: .* nan .* training.<phase>.optimizer"),
    ],
)
def test_what_lightning_finds_in_a_training_is_explained(
    compose_run: ComposeRun, setting: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(compose_run("phases=scratch", "+trainer.detect_anomaly=true", setting))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({}, "there is no phase 'hash' in training. It is empty."),
        ({"hash": {}}, "training.hash.objective has no value. Write it in the file of the"),
        (
            {"hash": {"objective": "hash"}},
            "training.hash.trains has no value. Write it in the file of the",
        ),
    ],
)
def test_a_phase_without_settings_is_named(
    compose_run: ComposeRun, training: dict[str, object], message: str
) -> None:
    cfg = compose_run("phases=scratch")
    cfg.training = training
    with pytest.raises(UserError, match=message):
        run(cfg)


@pytest.mark.parametrize("group", ["dataset", "protocol", "backbone", "method"])
def test_what_makes_something_else_is_explained(compose_run: ComposeRun, group: str) -> None:
    cfg = compose_run("phases=scratch")
    node = {"_target_": f"{__name__}.make_nothing"}
    if group == "protocol":
        node["validation"] = cfg.protocol.validation
    cfg[group] = node
    with pytest.raises(UserError, match=rf"{group}._target_=.* makes a NoneType; it must make a"):
        run(cfg)


def make_nothing(*args: object) -> None:
    return None


def constant_features(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(images), net.num_features) + 0 * images.mean()


def test_collapsed_codes_stop_the_run(
    compose_run: ComposeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deephash.backbones.ResNetSmall.forward", constant_features)
    with pytest.raises(UserError, match="The codes collapsed"):
        run(compose_run("phases=scratch"))
