"""Whole runs on the digits: what they leave, find again, resume and refuse."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, WANDB, assert_same_codes, codes_of
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from sample_images import write_picture

from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.data.datasets.digits import digits
from deephash.experiment.run import run
from deephash.experiment.settings import checked
from deephash.hamming.codes import unpack
from deephash.methods.base import HashBatch
from deephash.methods.joint import Joint

Compose = Callable[..., DictConfig]


def finished(compose_run: Compose, *overrides: str, folder: str = "run") -> Path:
    cfg = compose_run(*overrides, folder=folder)
    run(cfg)
    return Path(cfg.run_dir)


def printed_lines(output: str, phase: str) -> list[str]:
    return [line for line in output.splitlines() if re.match(rf"{phase} \d+/", line)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run by the command line, with W&B offline; its folder and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    places = [f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"HOME": str(folder), "NETRC": str(folder / "none")}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *QUICK, "bits=20", *places],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return folder / "run", done.stdout


def test_leaves_everything_it_names(whole: tuple[Path, str]) -> None:
    folder, output = whole
    for name in (
        "config.yaml",
        "record.json",
        "metrics.json",
        "split.npz",
        "codes/query.npz",
        "codes/database.npz",
        "checkpoints/pretrain.ckpt",
        "checkpoints/init.ckpt",
        "checkpoints/hash.ckpt",
    ):
        assert (folder / name).is_file(), name
    assert {path.name for path in folder.parent.glob("[!.]*")} == {"run", "cache"}
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert left == {"pretrain.ckpt", "init.ckpt", "hash.ckpt"}
    for name in ("curves", "precision_recall", "bit_balance", "neighbours"):
        assert (folder / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for phase in ("pretrain", "init", "hash"):
        assert len(printed_lines(output, phase)) == 1
    assert "mAP, expected over tie orders" in output
    assert "wandb sync" in output
    assert str(folder / "metrics.json") in output.replace("\n", "")


def test_metrics_are_those_of_the_saved_codes(whole: tuple[Path, str]) -> None:
    # mAP by brute force from the files: ties resolved by random orders, averaged.
    folder, _ = whole
    saved = codes_of(folder)
    figures = json.loads((folder / "metrics.json").read_text())["test"]
    query = unpack(saved["query_words"], 20).astype(int)
    database = unpack(saved["database_words"], 20).astype(int)
    distance = (20 - query @ database.T) // 2
    relevant = saved["query_labels"][:, None] == saved["database_labels"][None, :]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(20):
        order = np.lexsort((rng.random(distance.shape), distance))
        hits = np.take_along_axis(relevant, order, axis=1)
        precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
        means.append(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())
    assert figures["map"] == pytest.approx(np.mean(means), abs=4 * np.std(means))
    ball = distance <= 2
    within = (ball & relevant).sum(axis=1) / np.maximum(1, ball.sum(axis=1))
    assert figures["precision_radius2"] == pytest.approx(within.mean(), abs=1e-12)


def test_codes_and_split_agree_with_the_data(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    saved = codes_of(folder)
    image_set = digits()
    position = {name: i for i, name in enumerate(image_set.ids)}
    with np.load(folder / "split.npz") as split:
        for part in ("query", "database"):
            ids = saved[f"{part}_ids"]
            assert ids.tolist() == split[part].tolist()
            labels = image_set.labels[[position[i] for i in ids]]
            assert saved[f"{part}_labels"].tolist() == labels.tolist()
            assert saved[f"{part}_words"].dtype == np.uint64
            assert saved[f"{part}_bits"] == 20
        assert not set(split["query"]) & (set(split["database"]) | set(split["train"]))
        assert len(split["query"]) == 300


def test_learns(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    # One epoch a phase; chance is 0.1.
    assert json.loads((folder / "metrics.json").read_text())["test"]["map"] > 0.6


def test_wandb_run_holds_the_curves_of_each_phase(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    inspected = subprocess.run(
        [WANDB, "leet", "inspect", "--json", file], capture_output=True, text=True, check=True
    )
    records = [json.loads(line) for line in inspected.stdout.splitlines()]
    curves: dict[str, list[float]] = {}
    for record in records:
        for key, value in record.get("history", {}).get("item", {}).items():
            curves.setdefault(key, []).append(value)
    for name in ("pretrain/loss", "pretrain/lr", "init/loss", "hash/loss", "hash/lr"):
        assert curves[name], name
        assert all(np.isfinite(curves[name])), name
    for name in ("val/accuracy", "val/map", "hash/images_per_second", "test/map"):
        assert name in curves, name
    figures = json.loads((folder / "metrics.json").read_text())
    assert curves["test/map"] == [pytest.approx(figures["test"]["map"])]
    assert curves["val/map"][-1] == pytest.approx(figures["validation"]["val/map"])
    steps = curves["trainer/global_step"]
    assert steps == sorted(steps)
    assert any(record["type"] == "exit" for record in records)
    for picture in ("curves", "neighbours"):
        assert any(
            picture in str(path) for path in folder.glob("wandb/offline-run-*/files/media/**/*")
        )


def test_the_same_seed_gives_the_same_codes(compose_run: Compose, whole: tuple[Path, str]) -> None:
    assert_same_codes(whole[0], finished(compose_run, "bits=20"))


def test_another_seed_gives_others(compose_run: Compose) -> None:
    one = finished(compose_run, "phases=scratch", folder="one")
    other = finished(compose_run, "phases=scratch", "seed=1", folder="other")
    assert set(codes_of(one)["query_ids"]) != set(codes_of(other)["query_ids"])


def test_a_pretraining_is_found_again(
    compose_run: Compose, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    finished(compose_run, "bits=8", "logger=csv", folder="first")
    assert printed_lines(capsys.readouterr().out, "pretrain")
    second = finished(compose_run, "bits=16", "logger=csv", folder="second")
    output = capsys.readouterr().out
    assert "pretrain: found finished" in output
    assert not printed_lines(output, "pretrain")
    # Its curve is there all the same, and the result is that of a run that trained it itself.
    assert "pretrain/loss" in (second / "curves.csv").read_text()
    alone = finished(compose_run, "bits=16", f"cache_dir={tmp_path / 'empty'}", folder="alone")
    assert printed_lines(capsys.readouterr().out, "pretrain")
    assert_same_codes(second, alone)
    others = (
        "seed=1",
        "phase.pretrain.optimizer.lr=0.05",
        "augment.translate=0",
        "+trainer.gradient_clip_val=1",
    )
    for number, setting in enumerate(others):
        finished(compose_run, setting, "phases=pretrained", folder=f"other{number}")
        assert printed_lines(capsys.readouterr().out, "pretrain"), setting


@pytest.mark.parametrize(
    ("phase", "optimizer"),
    [("pretrain", "torch.optim.SGD"), ("hash", "torch.optim.SGD"), ("hash", "timm.optim.Muon")],
)
def test_killed_and_resumed_equals_uninterrupted(
    compose_run: Compose, tmp_path: Path, phase: str, optimizer: str
) -> None:
    longer = ["bits=12", f"phase.{phase}.epochs=3", "logger=csv"]
    longer.append(f"phase.{phase}.optimizer._target_={optimizer}")
    uninterrupted = finished(compose_run, *longer, folder="uninterrupted")
    folder = tmp_path / "killed"
    places = [f"run_dir={folder}", f"cache_dir={tmp_path / 'other_cache'}"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *QUICK, *longer, *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"{phase} 2/3"):
            os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "metrics.json").exists()
    run(OmegaConf.merge(compose_run(), {"resume": str(folder)}))  # type: ignore[arg-type]
    assert_same_codes(uninterrupted, folder)
    one, other = (json.loads((f / "metrics.json").read_text()) for f in (uninterrupted, folder))
    assert one["test"] == other["test"]

    def curves(path: Path) -> list[str]:
        rows = (path / "curves.csv").read_text().splitlines()
        column = rows[0].split(",").index(f"{phase}/loss")
        return [row.split(",")[column] for row in rows]

    assert curves(uninterrupted) == curves(folder)


def test_a_resumed_run_counts_the_seconds_of_all_its_sittings(
    compose_run: Compose, tmp_path: Path
) -> None:
    def seconds(folder: Path) -> dict[str, float]:
        return json.loads((folder / "metrics.json").read_text())["seconds"]

    def seconds_after_resuming(folder: Path) -> dict[str, float]:
        (folder / "metrics.json").unlink()
        run(OmegaConf.merge(compose_run(), {"resume": str(folder)}))  # type: ignore[arg-type]
        return seconds(folder)

    longer = "phase.pretrain.epochs=5"
    alone = finished(compose_run, "bits=8", longer, folder="alone")
    first = seconds(alone)
    again = seconds_after_resuming(alone)
    for name in ("pretrain", "total"):
        assert again[name] > 0.5 * first[name], name
    assert "pretrain_found" not in again
    # A pre-training that was found has cost the run nothing, and still has after a stop.
    finder = finished(compose_run, "bits=16", longer, folder="finder")
    for taken in (seconds(finder), seconds_after_resuming(finder)):
        assert taken["pretrain"] < 0.5 * first["pretrain"]
        assert taken["pretrain_found"] == pytest.approx(first["pretrain"], rel=0.5)


def test_ctrl_c_leaves_a_run_to_go_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    places = [f"run_dir={folder}", f"cache_dir={tmp_path / 'cache'}", "logger=csv"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *QUICK, "phase.pretrain.epochs=50", *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # A shell that started the tests in the background had them ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("pretrain 2/50"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert f"resume={folder}" in errors
    assert "Traceback" not in errors
    assert (folder / "checkpoints" / "pretrain.unfinished.ckpt").is_file()
    assert not list(folder.rglob("*.part*"))


@pytest.mark.parametrize("seconds", [0.3, 1, 2, 3, 4.5, 6])
def test_ctrl_c_at_any_moment_leaves_no_trace(seconds: float, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "train.py",
            "phase.hash.epochs=1000",
            f"run_dir={tmp_path / 'run'}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.part*"))


def test_a_folder_that_holds_a_run_is_not_touched(compose_run: Compose) -> None:
    folder = finished(compose_run, "phases=scratch")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"already holds a run.*resume="):
        run(compose_run("bits=16"))
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_in_which_a_run_is_at_work_is_not_touched(compose_run: Compose) -> None:
    cfg = compose_run()
    folder = Path(cfg.run_dir)
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another process trains this"):
        run(cfg)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_data_that_were_moved_are_found_by_a_resumed_run(
    compose_run: Compose, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    photos = [
        *own_images(before),
        "dataset.path=${data_dir}/list.csv",
        f"dataset.decoded_dir={tmp_path / 'decoded'}",
    ]
    cfg = compose_run(*photos, f"data_dir={before}")
    run(cfg)
    first = (Path(cfg.run_dir) / "metrics.json").read_bytes()
    before.rename(after)
    moved = compose_run(*photos, f"data_dir={after}")
    run(moved, Path(cfg.run_dir))  # as a sweep does; finished
    assert (Path(cfg.run_dir) / "metrics.json").read_bytes() == first
    (Path(cfg.run_dir) / "metrics.json").unlink()
    run(moved, Path(cfg.run_dir))
    again = json.loads((Path(cfg.run_dir) / "metrics.json").read_text())
    assert again["test"] == json.loads(first)["test"]


def test_checkpoints_are_written_beside_their_names(
    compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")  # may be another file system, or full
    folder = finished(compose_run, "phases=scratch")
    assert (folder / "checkpoints" / "hash.ckpt").is_file()


@pytest.mark.parametrize(
    ("key", "value"), [("bits", 16), ("backbone", None), ("data", "0" * 64)], ids=str
)
def test_a_checkpoint_of_another_model_is_refused(
    compose_run: Compose, key: str, value: object
) -> None:
    folder = finished(compose_run, "phases=scratch")
    path = folder / "checkpoints" / "hash.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["deephash"][key] = value
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=rf"hash.ckpt is a checkpoint of another model: its {key}"):
        run(OmegaConf.merge(compose_run(), {"resume": str(folder)}))  # type: ignore[arg-type]


def test_a_corrupt_checkpoint_is_named(compose_run: Compose) -> None:
    folder = finished(compose_run, "phases=scratch")
    path = folder / "checkpoints" / "hash.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"hash.ckpt is corrupt"):
        run(OmegaConf.merge(compose_run(), {"resume": str(folder)}))  # type: ignore[arg-type]


def test_a_loss_that_turns_nan_stops_the_run(compose_run: Compose) -> None:
    explosive = ["phases=scratch", "phase.hash.optimizer.lr=1e30", "phase.hash.warmup=0"]
    with pytest.raises(UserError, match=r"hash: the loss turned .* Lower phase.hash.optimizer.lr"):
        run(compose_run(*explosive))


class Unfit(Joint):
    """A method with something wrong, as `fault` says."""

    def __init__(self, num_features: int, bits: int, num_classes: int, *, fault: str) -> None:
        wrong = bits + (fault == "width")
        super().__init__(
            num_features, wrong, num_classes, surrogate="bilinear", tau=2.0, balanced=True
        )
        self.fault = fault

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits = super().forward(features)
        return logits if self.training or self.fault != "nan" else logits * torch.nan

    def loss(self, batch: HashBatch) -> dict[str, torch.Tensor]:
        if self.fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")
        return super().loss(batch)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("width", r"Unfit makes logits of shape \(\d+, 49\).*bits=48"),
        ("nan", "Logits of validation images are NaN"),
        ("memory", r"CUDA out of memory\. Lower phase\.<name>\.batch_size"),
    ],
)
def test_what_a_method_does_wrong_is_told(compose_run: Compose, fault: str, told: str) -> None:
    cfg = compose_run("phases=scratch")
    cfg.method = {"_target_": f"{__name__}.Unfit", "fault": fault}
    with pytest.raises(UserError, match=told):
        run(cfg)


def test_codes_that_collapse_stop_the_run(
    compose_run: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Features that are all alike make codes that are all alike.
    monkeypatch.setattr("deephash.backbones.ResNetSmall.forward", constant_features)
    with pytest.raises(UserError, match="codes collapsed"):
        run(compose_run("phases=scratch"))


def constant_features(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    width = net.num_features
    return torch.ones(len(images), width) + 0 * images.mean()


def test_classification_alone_is_a_run_too(compose_run: Compose) -> None:
    cfg = compose_run("phases.order=[pretrain]")
    assert 0.3 < run(cfg) <= 1


def own_images(folder: Path) -> list[str]:
    """Overrides for sixty images of one or two of two labels, two of them the same picture."""
    rows = ["file,labels"]
    for i in range(60):
        write_picture(folder / f"{i}.jpg", seed=i % 59)
        rows.append(f"{i}.jpg,{['sea', 'sky', 'sea;sky'][i % 3]}")
    (folder / "broken.jpg").write_bytes(b"")
    rows.append("broken.jpg,sea")
    (folder / "list.csv").write_text("\n".join(rows))
    return [
        "dataset=images",
        f"dataset.path={folder / 'list.csv'}",
        f"dataset.decoded_dir={folder / 'decoded'}",
        "dataset.size=32",
        "dataset.workers=1",
        "dataset.tolerated=0.02",
        "backbone=resnet_small",
        "phase.pretrain.batch_size=20",
        "phase.hash.batch_size=20",
        "evaluation.ks=[5]",
    ]


def test_own_images_of_several_labels(compose_run: Compose, tmp_path: Path) -> None:
    own = own_images(tmp_path / "photos")
    folder = finished(compose_run, *own)
    figures = json.loads((folder / "metrics.json").read_text())
    record, test = figures["record"], figures["test"]
    assert (
        record["images"]["query"] + record["images"]["database"]
        == 60 - (record["copies_of_queries_left_out"])
    )
    for name in ("ndcg", "ndcg@5", "weighted_map", "weighted_map@5"):
        assert test[name] > 0
    (told,) = json.loads((folder / "data.json").read_text())["left_out"]["broken"]
    assert told.endswith("broken.jpg: no image in a known format")
    assert codes_of(folder)["database_labels"].shape[1] == 2
    decoded_anew = finished(compose_run, *own, "dataset.cache_decoded=false", folder="anew")
    assert_same_codes(folder, decoded_anew)
    assert (folder / "pictures" / "neighbours.png").is_file()


def test_a_query_s_copy_is_left_out(compose_run: Compose, tmp_path: Path) -> None:
    """Picture 0 and 59 are one; as a query, it is not searched under its other name."""
    own = own_images(tmp_path / "photos")
    for seed in range(30):
        cfg = compose_run(*own, f"seed={seed}", folder=f"{seed}")
        image_set = build("dataset", checked(cfg).dataset)
        split = build("protocol", checked(cfg).protocol, image_set, seed)
        names = image_set.ids[split.query].tolist()
        if ("0.jpg" in names) != ("59.jpg" in names):
            break
    run(cfg)
    record = json.loads((Path(cfg.run_dir) / "metrics.json").read_text())["record"]
    assert record["copies_of_queries_left_out"] == 1
    codes = codes_of(Path(cfg.run_dir))
    assert not {"0.jpg", "59.jpg"} & set(codes["database_ids"].tolist())
