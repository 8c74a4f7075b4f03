"""Curves, progress lines and seeds of a phase, in fits whose losses are given."""

import logging
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from deephash.core.errors import UserError
from deephash.core.seeds import derived_seed
from deephash.training.callbacks import (
    CurveRecorder,
    EpochPrinter,
    EpochSeeder,
    loggers_starting_empty,
    replay,
)

IMAGES_PER_BATCH = 3


class ScriptedModule(pl.LightningModule):
    """Step i of a fit has the i-th of the given losses, and the rate 1 / (1 + i)."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.losses = losses
        self.validations = 0

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss = self.losses[self.global_step] + 0 * self.weight.sum()
        return {"loss": loss, "margin": 100 - loss}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if batch_idx == 0:
            self.validations += 1

    def on_validation_epoch_end(self) -> None:
        self.log("val/map", self.validations / 10, logger=False)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        scheduler = LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class RecordingLogger(DummyLogger):
    """Keeps the rows that it is given."""

    def __init__(self, *, starts_empty: bool = False) -> None:
        super().__init__()
        self.starts_empty = starts_empty
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def fit(
    losses: list[float],
    *callbacks: Callback,
    epochs: int = 2,
    steps_per_epoch: int | None = None,
    loggers: list[RecordingLogger] | None = None,
    ckpt_path: Path | None = None,
) -> ScriptedModule:
    steps = steps_per_epoch or len(losses) // epochs
    batches, first = (
        DataLoader([{"labels": torch.zeros(IMAGES_PER_BATCH)}] * count, batch_size=None)
        for count in (steps, 1)
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=loggers or False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        num_sanity_val_steps=0,
    )
    module = ScriptedModule(losses)
    trainer.fit(module, batches, first, ckpt_path=ckpt_path)
    return module


def column(curves: CurveRecorder, name: str) -> dict[float, float]:
    """The values of a curve by step."""
    return {row["step"]: row[name] for row in curves.rows if name in row}


def test_a_value_is_the_mean_over_the_steps_since_the_last_row() -> None:
    losses = [float(i * i) for i in range(26)]  # two epochs of 13 steps
    curves = CurveRecorder("hash", first_step=0)
    fit(losses, curves)
    # Means of the squares of 0 to 9, of 10 to 12, of 13 to 22 and of 23 to 25, by hand.
    expected = {10: 28.5, 13: 365 / 3, 23: 3145 / 10, 26: 1730 / 3}
    assert column(curves, "hash/loss") == pytest.approx(expected)
    margins = {step: 100 - value for step, value in expected.items()}
    assert column(curves, "hash/margin") == pytest.approx(margins)


@pytest.mark.parametrize(
    ("steps_per_epoch", "expected"),
    [
        (3, [3, 6]),
        (10, [10, 20]),
        (20, [10, 20, 30, 40]),
        (25, [10, 20, 25, 35, 45, 50]),
    ],
)
def test_there_is_a_row_every_ten_steps_and_at_the_end_of_each_epoch(
    steps_per_epoch: int, expected: list[int]
) -> None:
    curves = CurveRecorder("init", first_step=0)
    fit([1.0] * 2 * steps_per_epoch, curves)
    assert list(column(curves, "init/loss")) == expected


def test_steps_are_counted_over_all_phases() -> None:
    curves = CurveRecorder("hash", first_step=1000)
    fit([1.0] * 26, curves)
    assert list(column(curves, "hash/loss")) == [1010, 1013, 1023, 1026]
    assert list(column(curves, "val/map")) == [1013, 1026]


def test_a_row_has_the_rate_of_its_last_step() -> None:
    curves = CurveRecorder("hash", first_step=5)
    fit([1.0] * 26, curves)
    expected = {5 + step: 1 / step for step in (10, 13, 23, 26)}
    assert column(curves, "hash/lr") == pytest.approx(expected)


def test_the_last_row_of_an_epoch_has_its_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 2))  # two seconds between any two looks
    monkeypatch.setattr("deephash.training.callbacks.time.perf_counter", lambda: next(clock))
    curves = CurveRecorder("hash", first_step=0)
    fit([1.0] * 26, curves)
    speed = 13 * IMAGES_PER_BATCH / 2
    assert column(curves, "hash/images_per_second") == {13: speed, 26: speed}


def test_validation_metrics_have_a_row_of_their_own_with_the_epoch() -> None:
    curves = CurveRecorder("hash", first_step=0, first_epoch=5)
    fit([1.0] * 26, curves)
    rows = [row for row in curves.rows if "epoch" in row]
    assert rows == [
        {"step": 13, "val/map": pytest.approx(0.1), "epoch": 6},
        {"step": 26, "val/map": pytest.approx(0.2), "epoch": 7},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [3, 12])
def test_a_loss_that_is_not_finite_is_an_error(step: int, value: float) -> None:
    losses = [1.0] * 26
    losses[step] = value
    found_at = 10 if step == 3 else 13
    message = rf"hash: the loss became {value} by step {found_at}\..*training\.hash\.optimizer\.lr"
    with pytest.raises(UserError, match=message):
        fit(losses, CurveRecorder("hash", first_step=0))


def test_a_checkpoint_keeps_the_rows_as_counted_from_the_phase(tmp_path: Path) -> None:
    losses = [float(i * i) for i in range(39)]
    whole = CurveRecorder("hash", first_step=0)
    fit(losses, whole, epochs=3, steps_per_epoch=13)
    stopped = CurveRecorder("hash", first_step=500, first_epoch=50)
    checkpoint = ModelCheckpoint(tmp_path, "last")
    fit(losses, stopped, checkpoint, epochs=2, steps_per_epoch=13)
    assert stopped.state_dict()["rows"][-1]["epoch"] == 2
    resumed = CurveRecorder("hash", first_step=70, first_epoch=7)
    path = tmp_path / "last.ckpt"
    fit(losses, resumed, epochs=3, steps_per_epoch=13, ckpt_path=path)
    for name in ("hash/loss", "hash/margin", "hash/lr"):
        expected = {step + 70: value for step, value in column(whole, name).items()}
        assert column(resumed, name) == pytest.approx(expected)
    assert column(resumed, "epoch") == {83: 8, 96: 9, 109: 10}


def test_seconds_are_those_of_all_sittings_or_of_another_run() -> None:
    first = CurveRecorder("pretrain", first_step=0)
    first.earlier_seconds = 100.0
    second = CurveRecorder("pretrain", first_step=0)
    second.load_state_dict(first.state_dict())
    assert second.earlier_seconds == pytest.approx(100, abs=5)
    second.mark_as_cached()
    third = CurveRecorder("pretrain", first_step=0)
    third.load_state_dict(second.state_dict())
    assert third.earlier_seconds == pytest.approx(0, abs=5)
    assert third.cached_seconds == pytest.approx(100, abs=5)


def test_the_state_is_found_under_a_name_that_does_not_change() -> None:
    assert CurveRecorder("hash", first_step=0).state_key == "Curves"


def test_loggers_are_given_each_row_as_it_is_made() -> None:
    logger = RecordingLogger()
    curves = CurveRecorder("hash", first_step=100)
    fit([1.0] * 26, curves, loggers=[logger])
    steps = [row["step"] for row in curves.rows]
    values = [{k: v for k, v in row.items() if k != "step"} for row in curves.rows]
    assert logger.rows == list(zip(steps, values, strict=True))


def test_a_resumed_training_replays_its_rows_to_loggers_that_start_empty(tmp_path: Path) -> None:
    fit([1.0] * 39, CurveRecorder("hash", 0), ModelCheckpoint(tmp_path, "last"), epochs=2,
        steps_per_epoch=13)  # fmt: skip
    loggers = [RecordingLogger(starts_empty=True), RecordingLogger()]
    curves = CurveRecorder("hash", first_step=0)
    path = tmp_path / "last.ckpt"
    fit([1.0] * 39, curves, epochs=3, steps_per_epoch=13, loggers=loggers, ckpt_path=path)
    whole, rest = (sorted({step for step, _ in logger.rows}) for logger in loggers)
    assert whole == [10, 13, 23, 26, 36, 39]
    assert rest == [36, 39]


def test_replay_passes_rows_by_step_and_saves() -> None:
    logger, saved = RecordingLogger(), []
    logger.save = lambda: saved.append(len(logger.rows))  # type: ignore[method-assign]
    replay([{"step": 3.0, "a": 1.0}, {"step": 4.0, "b": 2.0}], [logger])
    assert logger.rows == [(3, {"a": 1.0}), (4, {"b": 2.0})]
    assert saved == [2]
    empty = RecordingLogger(starts_empty=True)
    assert loggers_starting_empty([logger, empty]) == [empty]


def test_one_line_per_epoch_has_the_last_loss_and_the_validation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    curves = CurveRecorder("hash", first_step=0)
    with caplog.at_level(logging.INFO, "deephash"):
        fit([float(i) for i in range(26)], curves, EpochPrinter("hash", curves))
    records = [record for record in caplog.records if "deephash" in record.name]
    assert [hasattr(record, "milestone") for record in records] == [False, True]
    lines = [record.getMessage().rpartition("  ")[0] for record in records]
    assert lines == [
        "hash 1/2  loss 11.0000  val/map 0.1000",
        "hash 2/2  loss 24.0000  val/map 0.2000",
    ]


class DrawRecorder(Callback):
    """Records what the global generators draw at the start of each epoch."""

    def __init__(self) -> None:
        self.draws: dict[int, tuple[float, float, float]] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        draws = torch.rand(()).item(), float(np.random.rand()), random.random()
        self.draws[trainer.current_epoch] = draws


def test_each_epoch_has_generators_of_its_own_seed(tmp_path: Path) -> None:
    def draws(seed: int, epochs: int, *more: Callback, path: Path | None = None) -> dict[int, Any]:
        recorder = DrawRecorder()
        losses = [1.0] * 4 * epochs
        fit(losses, EpochSeeder(seed), recorder, *more, epochs=epochs, ckpt_path=path)
        return recorder.draws

    whole = draws(7, 3)
    assert len(set(whole.values())) == 3
    torch.manual_seed(derived_seed(7, 1))
    assert whole[1][0] == torch.rand(()).item()
    draws(7, 2, ModelCheckpoint(tmp_path, "last"))
    assert draws(7, 3, path=tmp_path / "last.ckpt") == {2: whole[2]}
    assert draws(8, 3)[0] != whole[0]
