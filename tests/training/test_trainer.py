"""Lightning's Trainer by its settings."""

import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from tiny_training import CPU, TinyRun, all_phases
from torch import nn

from deephash.core.errors import UserError
from deephash.training.checkpoints import AtomicCheckpointIO
from deephash.training.trainer import (
    has_bfloat16,
    resolve_trainer_config,
    sync_batchnorm,
    trainer_factory,
)


@pytest.mark.parametrize("has_it", [True, False])
def test_automatic_precision_is_bfloat16_where_the_device_has_it(
    has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deephash.training.trainer.has_bfloat16", lambda config: has_it)
    config, world_size = resolve_trainer_config({**CPU, "precision": "auto"}, is_multirun=False)
    assert config["precision"] == ("bf16-mixed" if has_it else "32-true")
    assert world_size == 1


def test_a_chosen_precision_is_kept() -> None:
    config = {**CPU, "precision": "64-true"}
    assert resolve_trainer_config(config, is_multirun=False) == (config, 1)


def test_bfloat16_of_a_processor_is_asked_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({"avx512_bf16": True}, True), ({"avx512": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert has_bfloat16(CPU) == expected


@pytest.mark.parametrize(
    ("settings", "launched", "is_multirun", "message"),
    [
        ({"devices": -3}, 1, False, r"trainer: .*devices=-3.*Without a GPU use trainer=cpu"),
        ({}, 2, False, r"2 processes were launched, but trainer.devices=1 makes 1\."),
        ({"devices": 2}, 1, True, r"-m with trainer.devices=2: each of the 2 processes"),
        ({"devices": 2, "sync_batchnorm": True}, 1, False, "batch norm between GPUs only. On CPUs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: dict[str, Any],
    launched: int,
    is_multirun: bool,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deephash.training.trainer.launched_world_size", lambda: launched)
    config = {**CPU, "precision": "32-true", **settings}
    with pytest.raises(UserError, match=message):
        resolve_trainer_config(config, is_multirun=is_multirun)


def test_a_trainer_of_a_phase_writes_whole_checkpoints_and_leaves_the_order_to_us(
    tmp_path: Path,
) -> None:
    config = {**CPU, "precision": "64-true", "gradient_clip_val": 0.5, "sync_batchnorm": True}
    make_trainer = trainer_factory(config, tmp_path)
    callback = EarlyStopping("loss")
    trainer = make_trainer(callbacks=[callback], logger=False, max_epochs=3)
    assert isinstance(trainer, pl.Trainer)
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert trainer.max_epochs == 3
    assert trainer.gradient_clip_val == 0.5
    assert trainer.num_sanity_val_steps == 0
    assert trainer.default_root_dir == str(tmp_path)
    assert trainer._accelerator_connector.use_distributed_sampler is False
    assert callback in trainer.callbacks
    assert trainer.checkpoint_callback is not None
    alone = make_trainer(callbacks=[], logger=False, max_epochs=1)  # extracts features
    assert alone.checkpoint_callback is None


def test_a_run_keeps_its_handler_of_sigterm(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    found = set()

    def handler(*_: object) -> None:
        raise AssertionError

    def note_handler(*_: object) -> None:
        found.add((run.net.training, signal.getsignal(signal.SIGTERM)))

    run.net.register_forward_hook(note_handler)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        run.run(all_phases())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == {(True, handler), (False, handler)}


def test_batch_norm_is_synchronised_where_it_is_asked_for() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert sync_batchnorm(net, {}) is net
    assert isinstance(net[1], nn.BatchNorm2d)
    converted = sync_batchnorm(net, {"sync_batchnorm": True})
    assert isinstance(converted[1], nn.SyncBatchNorm)
