"""Checkpoints that are damaged, foreign or incomplete; what a full disk leaves."""

import io
import logging
import pickle
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from tiny_training import TinyRun, make_phase
from torch import nn

from deephash.core.errors import UserError
from deephash.core.io import atomic_write, is_undamaged, remove_partial_files
from deephash.training.checkpoints import AtomicCheckpointIO, write_checkpoint
from deephash.training.pretraining import pretraining_lock

HASH = {"hash": make_phase("hash", epochs=1)}
PRETRAIN = {"pretrain": make_phase(epochs=1)}
FLIPS = 40


@contextmanager
def max_file_size(size: int) -> Iterator[None]:
    """As if the disk were full: no file may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    run.run(HASH)
    path = run.checkpoints / "hash.ckpt"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    # Random ones, and each of the last record and of the seal.
    bits = [*rng.integers(8 * len(whole), size=FLIPS).tolist(), *range(8 * (len(whole) - 93), 8)]
    bits += range(8 * (len(whole) - 93), 8 * len(whole))
    for bit in bits:
        path.write_bytes(whole)
        flip_bit(path, bit)
        assert not is_undamaged(path), bit
    with pytest.raises(UserError, match=r"hash.ckpt is corrupt \(its checksum differs\).*resume="):
        TinyRun(tmp_path).run(HASH)
    path.write_bytes(whole)
    again = TinyRun(tmp_path)
    again.run(HASH)
    assert again.recorders == []


def test_bits_that_flip_in_the_cache_cost_a_training_but_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = TinyRun(tmp_path / "first", cache=tmp_path / "cache")
    first.run(PRETRAIN)
    (cached,) = (tmp_path / "cache").glob("*.ckpt")
    flip_bit(cached, 4 * len(cached.read_bytes()))
    with caplog.at_level(logging.WARNING, "deephash"):
        second = TinyRun(tmp_path / "second", cache=tmp_path / "cache")
        second.run(PRETRAIN)
    message = f"pretrain: {cached} is corrupt (its checksum differs); it is trained again"
    assert message in caplog.messages
    assert len(second.recorders) == 1
    assert is_undamaged(cached)  # it was replaced
    third = TinyRun(tmp_path / "third", cache=tmp_path / "cache", weight_seed=1)
    third.run(PRETRAIN)
    assert third.recorders == []
    for name, value in first.weights().items():
        assert torch.equal(second.weights()[name], value), name
        if name.startswith("backbone."):
            assert torch.equal(third.weights()[name], value), name


def drop_weight(checkpoint: dict) -> None:
    del checkpoint["state_dict"]["backbone.backbone.linear.bias"]


def reshape_weight(checkpoint: dict) -> None:
    checkpoint["state_dict"]["backbone.backbone.linear.bias"] = torch.zeros(9)


def double_all(checkpoint: dict) -> None:
    drop_weight(checkpoint)
    checkpoint["state_dict"]["backbone.backbone.linear.weight"] += 1


CONTENTS: list[tuple[Callable[[dict], Any], str]] = [
    (lambda checkpoint: [1, 2], r"it holds a list"),
    (lambda checkpoint: None, r"it holds a NoneType"),
    (lambda checkpoint: checkpoint["state_dict"], r"it has no state_dict"),
    (lambda checkpoint: checkpoint | {"callbacks": {}}, r"it has no curves"),
    (lambda checkpoint: checkpoint | {"callbacks": [1]}, r"it has no curves"),
    (lambda checkpoint: checkpoint | {"deephash": 3}, r"it has no curves or weights"),
    (lambda checkpoint: checkpoint | {"state_dict": 3}, r"it has no curves or weights"),
    (lambda checkpoint: checkpoint | {"state_dict": {"a": 3}}, r"does not fit the code of"),
    (lambda checkpoint: drop_weight(checkpoint) or checkpoint, r"does not fit .*linear\.bias"),
    (lambda checkpoint: reshape_weight(checkpoint) or checkpoint, r"does not fit .*size mismatch"),
    (lambda checkpoint: double_all(checkpoint) or checkpoint, r"does not fit .*linear\.bias"),
    (lambda checkpoint: checkpoint | {"net": nn.Linear}, r"more than weights and plain values"),
]


@pytest.mark.parametrize(("change", "message"), CONTENTS, ids=[text for _, text in CONTENTS])
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "of before"])
def test_what_is_no_checkpoint_is_one_sentence_and_in_the_cache_a_warning(
    change: Callable[[dict], Any],
    message: str,
    sealed: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = TinyRun(tmp_path, cache=tmp_path / "cache")
    run.run(PRETRAIN)
    (cached,) = (tmp_path / "cache").glob("*.ckpt")
    content = change(torch.load(cached, weights_only=True))
    for path in (cached, run.checkpoints / "pretrain.ckpt"):
        if sealed:
            write_checkpoint(content, path)
        else:
            torch.save(content, path)
    with pytest.raises(UserError, match=rf"pretrain\.ckpt .*{message}") as error:
        TinyRun(tmp_path).run(PRETRAIN)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    other = TinyRun(tmp_path / "other", cache=tmp_path / "cache")
    with caplog.at_level(logging.WARNING, "deephash"):
        other.run(PRETRAIN)
    assert re.search(rf"{cached} .*{message}.*; it is trained again", caplog.text)
    assert "\n" not in caplog.messages[-1]
    for name, value in run.weights().items():
        assert torch.equal(other.weights()[name], value), name


def test_a_checkpoint_of_before_is_taken(tmp_path: Path) -> None:
    run = TinyRun(tmp_path)
    run.run(HASH)
    path = run.checkpoints / "hash.ckpt"
    torch.save(torch.load(path, weights_only=True), path)
    again = TinyRun(tmp_path)
    again.run(HASH)
    assert again.recorders == []


def drop_momentum(checkpoint: dict) -> None:
    checkpoint["optimizer_states"][0]["param_groups"][0]["params"].pop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("optimizer_states"), "it has no optimizer_states"),
        (lambda c: c.pop("loops"), "it has no loops"),
        (lambda c: c["optimizer_states"].clear(), "the state of its optimizer is that of another"),
        (drop_momentum, "the state of its optimizer is that of another"),
    ],
)
def test_an_unfinished_checkpoint_without_what_training_needs_is_refused(
    change: Callable[[dict], object], message: str, tmp_path: Path
) -> None:
    run = TinyRun(tmp_path)
    run.run(HASH)
    path = (run.checkpoints / "hash.ckpt").rename(run.checkpoints / "hash.unfinished.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    write_checkpoint(checkpoint, path)
    with pytest.raises(UserError, match=rf"{path} is corrupt \({message}"):
        TinyRun(tmp_path).run(HASH)


class Touch:
    """What a pickle executes when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_lightning_reads_no_code_either(tmp_path: Path) -> None:
    path, mark = tmp_path / "a.ckpt", tmp_path / "mark"
    torch.save({"state_dict": {}, "net": Touch(mark)}, path)
    for weights_only in (None, False, True):
        with pytest.raises(pickle.UnpicklingError):
            AtomicCheckpointIO().load_checkpoint(path, weights_only=weights_only)
    trainer = Trainer(
        accelerator="cpu", plugins=[AtomicCheckpointIO()], logger=False, barebones=False
    )
    with pytest.raises(pickle.UnpicklingError):
        trainer.strategy.load_checkpoint(path, weights_only=False)
    assert not mark.exists()


def test_a_full_disk_leaves_the_checkpoint_of_before(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint({"a": torch.zeros(10)}, path)
    before = path.read_bytes()
    for size in (1, 1000, 20_000, 39_000):
        with max_file_size(size), pytest.raises(OSError, match="File too large") as error:
            write_checkpoint({"a": torch.zeros(10_000)}, path)
        assert error.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_a_checkpoint_is_written_stays_one(
    signal: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InterruptedFile(io.FileIO):
        writes = 0

        def write(self, data: Any) -> int:
            self.writes += 1
            if self.writes == 3:
                raise signal
            return super().write(data)

    path = tmp_path / "hash.ckpt"
    write_checkpoint({"old": torch.zeros(1)}, path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda part, mode: InterruptedFile(part, mode))
        with pytest.raises(signal):
            write_checkpoint({"new": torch.zeros(100_000)}, path)
    assert list(torch.load(path)) == ["old"]
    assert is_undamaged(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_cache_costs_a_run_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_to_a_full_disk(source: Path, target: Path) -> None:
        with max_file_size(100), atomic_write(target) as part:
            part.write_bytes(source.read_bytes())

    monkeypatch.setattr("deephash.training.phases.copy_checkpoint", copy_to_a_full_disk)
    run = TinyRun(tmp_path, cache=tmp_path / "cache")
    with caplog.at_level(logging.WARNING, "deephash"):
        run.run(PRETRAIN)
    assert re.search(r"pretrain: other runs will not share it: .*File too large", caplog.text)
    assert not list((tmp_path / "cache").glob("*.ckpt*"))


def test_a_read_only_cache_that_has_the_pretraining_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TinyRun(tmp_path / "first", cache=tmp_path / "cache")
    first.run(PRETRAIN)
    (cached,) = (tmp_path / "cache").glob("*.ckpt")
    for lock in (tmp_path / "cache").glob("*.lock"):
        lock.unlink()
    (tmp_path / "cache" / f"{cached.stem}.lock").mkdir()  # no lock can be made, as if read-only
    second = TinyRun(tmp_path / "second", cache=tmp_path / "cache", weight_seed=1)
    second.run(PRETRAIN)
    assert second.recorders == []
    cached.unlink()
    with pytest.raises(UserError, match=r"cache_dir=.* cannot be written to \(Is a directory\)"):
        TinyRun(tmp_path / "third", cache=tmp_path / "cache").run(PRETRAIN)


@pytest.mark.parametrize("name", ["hash.ckpt", "hash.unfinished.ckpt"])
def test_a_folder_in_place_of_a_checkpoint_is_refused_before_training(
    name: str, tmp_path: Path
) -> None:
    run = TinyRun(tmp_path)
    (run.checkpoints / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{name} is a folder"):
        run.run(HASH)
    assert run.recorders == []


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    left = [".hash.unfinished.123.part.ckpt", ".metrics.9.part.json", ".config.12345.part"]
    kept = [".lock", "a.part", ".hidden.part.ckpt", "hash.ckpt"]
    for name in (*left, *kept):
        path = tmp_path / "deeper" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_partial_files(tmp_path)
    assert sorted(path.name for path in (tmp_path / "deeper").iterdir()) == sorted(kept)
    (tmp_path / ".pretrain-a.1.part.ckpt").touch()
    other = tmp_path / ".pretrain-b.2.part.ckpt"
    other.touch()
    with pretraining_lock(tmp_path / "pretrain-a.ckpt"):
        assert list(tmp_path.glob(".pretrain*")) == [other]
