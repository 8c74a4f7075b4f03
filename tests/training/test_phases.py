"""Phases in order: what each trains, what it leaves, and what is taken over from a cache."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import (
    BatchRecorder,
    TinyRun,
    all_phases,
    make_image_set,
    make_phase,
    make_split,
)

from deephash.core.errors import UserError
from deephash.training.modules import HashingModule
from deephash.training.pretraining import PretrainingCache

SPLIT = make_split()


def test_the_head_is_trained_alone_and_then_both(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    phases = all_phases()
    states = [run.weights()]
    for names in (["pretrain"], ["pretrain", "init"], ["pretrain", "init", "hash"]):
        run.run({name: phases[name] for name in names})
        states.append(run.weights())

    def changed(before: int, after: int) -> set[str]:
        names = states[before].keys()
        return {n for n in names if not torch.equal(states[before][n], states[after][n])}

    backbone = {f"backbone.backbone.linear.{name}" for name in ("weight", "bias")} | {
        f"backbone.backbone.norm.{name}"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    head = {"method.head.weight", "method.head.bias"}
    assert changed(0, 1) == backbone
    assert changed(1, 2) == head
    assert changed(2, 3) == backbone | head


def test_a_finished_phase_leaves_the_checkpoint_of_its_last_epoch(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    phases = {"hash": make_phase("hash", epochs=3)}
    runner = run.run(phases)
    assert [path.name for path in run.checkpoints.iterdir()] == ["hash.ckpt"]
    checkpoint = torch.load(run.checkpoints / "hash.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 2
    assert checkpoint["global_step"] == 12
    settings = phases["hash"].model_dump(mode="json")
    assert checkpoint["deephash"] == {**run.model.identity, "phase": "hash", "settings": settings}
    saved = checkpoint["state_dict"]
    assert saved.keys() == run.weights().keys()
    for name, value in run.weights().items():
        assert torch.equal(saved[name], value), name
    # A new runner takes them over without training.
    other = TinyRun(tmp_path, weight_seed=1)
    history = other.run(phases).history
    assert other.recorders == []
    for name, value in run.weights().items():
        assert torch.equal(other.weights()[name], value), name
    assert history.rows == runner.history.rows


def test_a_phase_that_fails_leaves_an_unfinished_checkpoint_and_goes_on(tmp_path: Path) -> None:
    phases = {"hash": make_phase("hash", epochs=3)}
    uninterrupted = TinyRun(tmp_path / "uninterrupted")
    uninterrupted.run(phases)

    class Stop(BatchRecorder):
        def on_train_epoch_start(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
            super().on_train_epoch_start(trainer, pl_module)
            if trainer.current_epoch == 2:
                raise KeyError("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiny_training.BatchRecorder", Stop)
        stopped = TinyRun(tmp_path / "stopped")
        with pytest.raises(KeyError, match="stopped"):
            stopped.run(phases)
    assert [path.name for path in stopped.checkpoints.iterdir()] == ["hash.unfinished.ckpt"]
    resumed = TinyRun(tmp_path / "stopped", weight_seed=1)
    resumed.run(phases)
    (whole,), (rest,) = uninterrupted.recorders, resumed.recorders
    assert rest.epochs == whole.epochs[2:]
    for name, value in uninterrupted.weights().items():
        torch.testing.assert_close(resumed.weights()[name], value, rtol=1e-12, atol=1e-12)
    assert [path.name for path in resumed.checkpoints.iterdir()] == ["hash.ckpt"]


def test_a_cached_pretraining_gives_the_same_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phases = {"pretrain": make_phase()}
    first = TinyRun(tmp_path / "first", cache=tmp_path / "cache")
    trained = first.run(phases)
    (cached,) = (tmp_path / "cache").glob("*.ckpt")
    second = TinyRun(tmp_path / "second", cache=tmp_path / "cache", weight_seed=1)
    with caplog.at_level(logging.INFO, "deephash"):
        taken_over = second.run(phases)
    assert f"pretrain: reusing the finished pre-training in {cached}" in caplog.messages
    assert second.net.calls == []
    for name, value in first.weights().items():
        if name.startswith("backbone."):
            assert torch.equal(second.weights()[name], value), name
    assert taken_over.history.rows == trained.history.rows
    assert taken_over.history.cached_seconds > 0
    assert trained.history.cached_seconds == 0
    checkpoints = [torch.load(run.checkpoints / "pretrain.ckpt") for run in (first, second)]
    for name, value in checkpoints[0]["state_dict"].items():
        assert torch.equal(checkpoints[1]["state_dict"][name], value), name


@pytest.mark.parametrize("stops_at", [None, 1], ids=["finished", "stopped"])
def test_a_pretraining_that_began_with_other_code_is_not_shared(
    stops_at: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phases = {"pretrain": make_phase(epochs=2)}
    before = TinyRun(tmp_path, cache=tmp_path / "cache")
    before.run(phases)
    (cached,) = (tmp_path / "cache").glob("*.ckpt")
    if stops_at is not None:
        (before.checkpoints / "pretrain.ckpt").rename(
            before.checkpoints / "pretrain.unfinished.ckpt"
        )
    resumed = TinyRun(tmp_path, cache=tmp_path / "cache", weight_seed=1)
    resumed.cache = PretrainingCache(tmp_path / "cache", {"source_digest": "of other code"})
    resumed.run(phases)
    assert "pretrain: it began with other code" in caplog.text
    assert list((tmp_path / "cache").glob("*.ckpt")) == [cached]


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 1},
        {"batch_size": 9},
        {"label_smoothing": 0.0},
        {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.06}},
        {"scheduler": {"_target_": "deephash.training.schedules.linear", "warmup": 0.0}},
        {"param_groups": {"classifier": {"lr": 0.1}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_pretraining_by_other_settings_is_another(change: dict, tmp_path: Path) -> None:
    cache = TinyRun(tmp_path).cache
    assert cache.path({"a": make_phase()}) == cache.path({"a": make_phase()})
    assert cache.path({"a": make_phase()}) != cache.path({"a": make_phase(**change)})


def test_bits_and_method_are_no_part_of_a_pretraining_s_identity(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    run.run({"pretrain": make_phase(epochs=1)})
    checkpoint = torch.load(run.checkpoints / "pretrain.ckpt", weights_only=True)
    assert checkpoint["deephash"].keys() == {"dataset", "phase", "settings"}


def test_steps_and_rows_are_counted_over_the_phases(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    history = run.run(all_phases()).history
    steps = {}
    for name in ("pretrain", "init", "hash"):
        steps[name] = [row["step"] for row in history.rows if f"{name}/loss" in row]
    assert steps == {"pretrain": [4, 8], "init": [12, 16], "hash": [20, 24]}
    assert list(history.seconds) == ["pretrain", "init", "hash"]
    assert history.earlier_seconds == 0
    validations = [{*row} - {"step"} for row in history.rows if "epoch" in row]
    assert validations == [{"val/accuracy", "val/loss", "epoch"}] * 2 + [{"val/map", "epoch"}] * 4


def test_a_validation_map_is_that_of_the_validation_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curve against a ranking by hand: each validation image, ranked among training images."""
    run = TinyRun(tmp_path)
    seen: dict[str, list[int]] = {"query": [], "database": []}
    validation_step = HashingModule.validation_step

    def recording_step(self, batch, batch_idx, dataloader_idx) -> None:  # type: ignore[no-untyped-def]
        seen["query" if dataloader_idx == 0 else "database"] += batch["indices"].tolist()
        validation_step(self, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(HashingModule, "validation_step", recording_step)
    history = run.run({"hash": make_phase("hash", epochs=1)}).history
    assert seen == {
        "query": SPLIT.validation.tolist(),
        "database": SPLIT.validation_database.tolist(),
    }
    images, labels = make_image_set().images, make_image_set().labels.numpy()
    with torch.no_grad():
        features = run.model.backbone.eval()(images)
        codes = np.where(run.model.method(features).numpy() >= 0, 1, -1)
    rng = np.random.default_rng(0)
    precisions = []
    for query in SPLIT.validation:
        distance = (codes[SPLIT.validation_database] != codes[query]).sum(axis=1)
        relevant = labels[SPLIT.validation_database] == labels[query]
        values = []
        for _ in range(2000):
            hits = relevant[np.lexsort((rng.random(len(distance)), distance))]
            precision = hits.cumsum() / np.arange(1, len(hits) + 1)
            values.append((precision * hits).sum() / hits.sum())
        precisions.append(np.mean(values))
    assert history.rows[-1]["val/map"] == pytest.approx(np.mean(precisions), abs=2e-3)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    phases = {"hash": make_phase("hash", epochs=1)}
    TinyRun(tmp_path).run(phases)
    other = TinyRun(tmp_path)
    other.model.identity["bits"] = 7
    with pytest.raises(UserError, match=r"hash\.ckpt belongs to another model: its bits is 6"):
        other.run(phases)


def test_a_checkpoint_that_was_trained_with_other_settings_is_refused(tmp_path: Path) -> None:
    TinyRun(tmp_path).run({"hash": make_phase("hash", epochs=1)})
    with pytest.raises(UserError, match=r"hash\.ckpt belongs to another .* settings .*'epochs': 1"):
        TinyRun(tmp_path).run({"hash": make_phase("hash", epochs=2)})


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "unfinished"])
def test_a_later_phase_is_not_taken_where_the_one_before_is_missing(
    stopped: bool, tmp_path: Path
) -> None:
    phases = {"init": make_phase("hash", trains="head"), "hash": make_phase("hash")}
    run = TinyRun(tmp_path)
    run.run(phases)
    later, missing = run.checkpoints / "hash.ckpt", run.checkpoints / "init.ckpt"
    if stopped:
        later = later.rename(later.with_suffix(".unfinished.ckpt"))
    missing.unlink()
    again = TinyRun(tmp_path)
    with pytest.raises(UserError, match=f"{missing} is missing, and {later.name} .* or remove"):
        again.run(phases)
    assert again.recorders == []
    later.unlink()
    TinyRun(tmp_path).run(phases)
    assert missing.is_file()


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "unfinished"])
def test_a_later_phase_is_not_taken_where_the_one_before_has_changed(
    stopped: bool, tmp_path: Path
) -> None:
    phases = {"init": make_phase("hash", trains="head"), "hash": make_phase("hash")}
    run = TinyRun(tmp_path)
    run.run(phases)
    later, earlier = run.checkpoints / "hash.ckpt", run.checkpoints / "init.ckpt"
    if stopped:
        later = later.rename(later.with_suffix(".unfinished.ckpt"))
    checkpoint = torch.load(earlier, weights_only=True)
    checkpoint["state_dict"]["method.head.bias"] += 1
    torch.save(checkpoint, earlier)
    with pytest.raises(UserError, match=f"{later} was not trained from the checkpoint"):
        TinyRun(tmp_path).run(phases)


def test_a_missing_pretraining_is_taken_from_the_cache(tmp_path: Path) -> None:
    phases = {"pretrain": make_phase(), "hash": make_phase("hash")}
    run = TinyRun(tmp_path)
    run.run(phases)
    (run.checkpoints / "pretrain.ckpt").unlink()
    again = TinyRun(tmp_path, weight_seed=1)
    again.run(phases)
    assert again.recorders == []
    for name, value in run.weights().items():
        assert torch.equal(again.weights()[name], value), name


def test_a_checkpoint_without_its_origin_is_taken(tmp_path: Path) -> None:
    phases = {"init": make_phase("hash", trains="head"), "hash": make_phase("hash")}
    run = TinyRun(tmp_path)
    run.run(phases)
    for path in run.checkpoints.glob("*.ckpt"):  # as version 0.2 left them
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["trained_from"], checkpoint["deephash"]["settings"]
        torch.save(checkpoint, path)
    again = TinyRun(tmp_path)
    again.run(phases)
    assert again.recorders == []


def test_the_sizes_of_backbone_and_method_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "deephash"):
        TinyRun(tmp_path).run({})
    # 42 x 5 + 5 of the linear layer and 2 x 5 of the norm; 5 x 6 + 6 of the head.
    assert caplog.messages == ["backbone RecordingNet: 225 parameters, method Joint: 36 parameters"]


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "unfinished"])
def test_a_checkpoint_of_other_layers_is_refused(stopped: bool, tmp_path: Path) -> None:
    phases = {"hash": make_phase("hash", epochs=1)}
    run = TinyRun(tmp_path)
    run.run(phases)
    path = run.checkpoints / "hash.ckpt"
    if stopped:
        path = path.rename(path.with_suffix(".unfinished.ckpt"))
    other = TinyRun(tmp_path)
    other.net.norm = torch.nn.LayerNorm(5)  # type: ignore[assignment]
    with pytest.raises(UserError, match=f"{path} does not fit the code of .*running_mean"):
        other.run(phases)


@pytest.mark.parametrize("content", [[1], {"state_dict": {}}], ids=["a list", "weights alone"])
def test_a_file_that_is_no_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    run.checkpoints.mkdir()
    torch.save(content, run.checkpoints / "hash.ckpt")
    with pytest.raises(UserError, match=r"hash\.ckpt is corrupt"):
        run.run({"hash": make_phase("hash", epochs=1)})
