"""Whole runs on the digits: what they leave, and what they refuse."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import ComposeRun, FinishedRun, assert_same_codes, read_codes
from filelock import FileLock
from omegaconf import DictConfig
from sample_images import write_image

from deephash.core.errors import UserError
from deephash.data.datasets.digits import digits
from deephash.data.image_set import ImageSet
from deephash.experiment.data import load_data
from deephash.experiment.run import run
from deephash.experiment.settings import validate_settings
from deephash.hamming.codes import unpack

pytestmark = pytest.mark.usefixtures("light_runs")


def run_and_return_folder(cfg: DictConfig) -> Path:
    run(cfg)
    return Path(cfg.run_dir)


def epoch_lines(lines: Sequence[str], phase: str) -> list[str]:
    return [line for line in lines if re.match(rf"{phase} \d+/", line)]


def test_a_run_leaves_the_files_it_names(finished_run: FinishedRun) -> None:
    folder, output = finished_run
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("wandb/")} == {
        ".lock",
        "config.yaml",
        "record.json",
        "metrics.json",
        "curves.csv",
        "split.npz",
        *(f"codes/{name}.npz" for name in ("query", "database")),
        *(f"checkpoints/{name}.ckpt" for name in ("pretrain", "init", "hash")),
        *(
            f"plots/{name}.{suffix}"
            for name in ("curves", "precision_recall", "bit_balance", "neighbours")
            for suffix in ("png", "pdf")
        ),
        "plots/precision_recall.csv",
    }
    for suffix, magic in {"png": b"\x89PNG", "pdf": b"%PDF"}.items():
        for path in folder.glob(f"plots/*.{suffix}"):
            assert path.read_bytes().startswith(magic)
    lines = output.splitlines()
    for phase in ("pretrain", "init", "hash"):
        assert len(epoch_lines(lines, phase)) == 1
    assert "HYDRA" not in output  # each line once, and nothing of Lightning's
    assert "mean average precision (mAP)" in output
    assert f"metrics      {folder}/metrics.json" in lines


def test_metrics_agree_with_brute_force_on_the_saved_codes(finished_run: FinishedRun) -> None:
    codes = read_codes(finished_run.folder)
    metrics = json.loads((finished_run.folder / "metrics.json").read_text())["test"]
    query = unpack(codes["query_words"], 20).astype(int)
    database = unpack(codes["database_words"], 20).astype(int)
    distance = (20 - query @ database.T) // 2
    relevant = codes["query_labels"][:, None] == codes["database_labels"][None, :]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(20):  # ties in random order
        order = np.lexsort((rng.random(distance.shape), distance))
        hits = np.take_along_axis(relevant, order, axis=1)
        precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
        means.append(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())
    assert metrics["map"] == pytest.approx(np.mean(means), abs=4 * np.std(means))
    assert metrics["map"] > 0.6  # after one epoch a phase; chance is 0.1
    ball = distance <= 2
    precision_in_ball = (ball & relevant).sum(axis=1) / np.maximum(1, ball.sum(axis=1))
    assert metrics["precision_radius2"] == pytest.approx(precision_in_ball.mean(), abs=1e-12)


def test_saved_codes_and_split_agree_with_the_data(finished_run: FinishedRun) -> None:
    codes = read_codes(finished_run.folder)
    image_set = digits()
    index_of_id = {name: i for i, name in enumerate(image_set.ids)}
    with np.load(finished_run.folder / "split.npz") as split:
        for part in ("query", "database"):
            ids = codes[f"{part}_ids"]
            assert ids.tolist() == split[part].tolist()
            labels = image_set.labels[[index_of_id[i] for i in ids]]
            assert codes[f"{part}_labels"].tolist() == labels.tolist()
            assert codes[f"{part}_words"].dtype == np.uint64
            assert codes[f"{part}_bits"] == 20
        assert not set(split["query"]) & (set(split["database"]) | set(split["train"]))
        assert len(split["query"]) == 300


def test_same_seed_gives_same_codes(compose_run: ComposeRun, finished_run: FinishedRun) -> None:
    assert_same_codes(finished_run.folder, run_and_return_folder(compose_run("bits=20")))


def test_another_seed_gives_another_split(compose_run: ComposeRun) -> None:
    splits = [load_data(validate_settings(compose_run(f"seed={seed}")))[1] for seed in (0, 1)]
    assert set(splits[0].query) != set(splits[1].query)


def test_runs_share_a_pretraining(
    compose_run: ComposeRun, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "deephash")

    def train(*overrides: str, folder: str) -> tuple[Path, bool]:
        """The run's folder, and whether it trained the pre-training itself."""
        caplog.clear()
        run_dir = run_and_return_folder(compose_run(*overrides, folder=folder))
        is_trained = bool(epoch_lines(caplog.messages, "pretrain"))
        assert is_trained != ("pretrain: reusing the finished pre-training" in caplog.text)
        return run_dir, is_trained

    _, is_trained = train("bits=8", "logger=csv", folder="first")
    assert is_trained
    second, is_trained = train("bits=16", "logger=csv", folder="second")
    assert not is_trained
    # Its curve is there all the same, and the codes are those of a run that trained it itself.
    assert "pretrain/loss" in (second / "curves.csv").read_text()
    empty_cache = f"cache_dir={tmp_path / 'empty'}"
    alone, is_trained = train("bits=16", empty_cache, folder="alone")
    assert is_trained
    assert_same_codes(second, alone)
    for number, setting in enumerate(
        ("seed=1", "training.pretrain.optimizer.lr=0.05", "+trainer.gradient_clip_val=1")
    ):
        _, is_trained = train(setting, "phases.order=[pretrain]", folder=f"other{number}")
        assert is_trained, setting


def test_classification_alone_is_a_run(compose_run: ComposeRun) -> None:
    assert 0.3 < run(compose_run("phases.order=[pretrain]")) <= 1


def test_a_folder_that_holds_a_run_is_refused(compose_run: ComposeRun, scratch_run: Path) -> None:
    before = {path: path.read_bytes() for path in scratch_run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"already holds a run.*resume="):
        run(compose_run("bits=16", folder=scratch_run.name))
    after = {path: path.read_bytes() for path in scratch_run.rglob("*") if path.is_file()}
    assert before == after


def test_the_folder_of_a_run_at_work_is_refused(compose_run: ComposeRun) -> None:
    cfg = compose_run()
    folder = Path(cfg.run_dir)
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another process trains this"):
        run(cfg)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def image_list_overrides(folder: Path) -> list[str]:
    """Overrides for sixty images with one or two of two labels; images 0 and 59 are the same."""
    rows = ["file,labels"]
    for i in range(60):
        write_image(folder / f"{i}.jpg", seed=i % 59)
        rows.append(f"{i}.jpg,{['sea', 'sky', 'sea;sky'][i % 3]}")
    (folder / "broken.jpg").write_bytes(b"")
    rows.append("broken.jpg,sea")
    (folder / "list.csv").write_text("\n".join(rows))
    return [
        "dataset=image_folder",
        "dataset.path=${data_dir}/list.csv",
        f"data_dir={folder}",
        f"dataset.decoded_dir={folder.parent / 'decoded'}",
        "dataset.size=32",
        "dataset.workers=1",
        "dataset.max_invalid_fraction=0.02",
        "backbone=resnet_small",
        "training.pretrain.batch_size=20",
        "training.hash.batch_size=20",
        "evaluation.ks=[5,1000]",
    ]


def test_images_of_several_labels(compose_run: ComposeRun, tmp_path: Path) -> None:
    overrides = image_list_overrides(tmp_path / "photos")
    folder = run_and_return_folder(compose_run(*overrides))
    results = json.loads((folder / "metrics.json").read_text())
    record, metrics = results["record"], results["test"]
    sizes, copies = record["images"], record["copies_of_queries_left_out"]
    assert sizes["query"] + sizes["database"] == 60 - copies
    for k in (5, sizes["database"]):  # 1000 is beyond
        for name in ("ndcg", f"ndcg@{k}", "weighted_map", f"weighted_map@{k}"):
            assert metrics[name] > 0
    (broken,) = json.loads((folder / "data.json").read_text())["left_out"]["broken"]
    assert broken.endswith("broken.jpg: not an image in a known format")
    assert read_codes(folder)["database_labels"].shape[1] == 2
    without_cache = compose_run(*overrides, "dataset.cache_decoded=false", folder="without-cache")
    assert_same_codes(folder, run_and_return_folder(without_cache))


def make_many_labels(count: int, per_image: int) -> ImageSet:
    labels = np.eye(count, dtype=np.uint8)[np.arange(120) % 3]
    labels[0, :per_image] = 1
    return ImageSet(
        name="many",
        images=np.random.default_rng(0).integers(256, size=(120, 1, 8, 8), dtype=np.uint8),
        labels=labels,
        ids=[str(i) for i in range(120)],
        classes=[str(i) for i in range(count)],
        is_test=np.zeros(120, bool),
    )


@pytest.mark.parametrize(
    ("count", "per_image", "message"),
    [
        (6401, 1, "dataset: 6,401 labels, but the evaluation takes at most 6,400 where"),
        (6400, 961, "dataset: an image has 961 labels, but the evaluation takes at most 960 of"),
    ],
)
def test_more_labels_than_can_be_evaluated_are_refused_before_the_training(
    compose_run: ComposeRun, tmp_path: Path, count: int, per_image: int, message: str
) -> None:
    cfg = compose_run("phases=scratch", "protocol=10-percent")
    target = f"{__name__}.make_many_labels"
    cfg.dataset = {"_target_": target, "count": count, "per_image": per_image}
    with pytest.raises(UserError, match=message):
        run(cfg)
    assert not list(tmp_path.iterdir())


def test_moved_data_are_found_by_a_resumed_run(compose_run: ComposeRun, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    overrides = [*image_list_overrides(before), "phases=scratch"]
    cfg = compose_run(*overrides)
    folder = run_and_return_folder(cfg)
    metrics = json.loads((folder / "metrics.json").read_text())
    before.rename(after)
    moved = compose_run(*overrides, f"data_dir={after}")
    run(moved, folder)  # as a job of a sweep does; it is finished
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    (folder / "metrics.json").unlink()
    run(moved, folder)
    assert json.loads((folder / "metrics.json").read_text())["test"] == metrics["test"]


def test_a_copy_of_a_query_is_left_out(compose_run: ComposeRun, tmp_path: Path) -> None:
    overrides = [*image_list_overrides(tmp_path / "photos"), "phases=scratch"]
    copies = {"0.jpg", "59.jpg"}
    for seed in range(30):
        cfg = compose_run(*overrides, f"seed={seed}", folder=f"{seed}")
        image_set, split = load_data(validate_settings(cfg))
        if len(copies & set(image_set.ids[split.query].tolist())) == 1:
            break
    folder = run_and_return_folder(cfg)
    assert json.loads((folder / "record.json").read_text())["copies_of_queries_left_out"] == 1
    assert not copies & set(read_codes(folder)["database_ids"].tolist())
