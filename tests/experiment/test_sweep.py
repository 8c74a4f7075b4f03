"""Sweeps: finished runs stay, failures are reported, and launchers run them side by side."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, TORCHRUN, WANDB, RunProgram, start_train, wait_for_line
from omegaconf import OmegaConf
from sample_images import write_class_folders

from deephash.experiment.run_dir import sweep_name
from deephash.experiment.sweep import MAX_NAME, SweepSummary, folder_name
from deephash.experiment.sweep_summary import (
    curves_by_settings,
    map_by_bits,
    varying_settings,
    write_sweep_summary,
)

SCRATCH = ["phases=scratch", "logger=none"]


def sweep_arguments(folder: Path, *overrides: str) -> list[str]:
    places = [f"run_dir={folder}", f"cache_dir={folder.parent / 'cache'}"]
    return ["-m", *places, *QUICK, *overrides]


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_metrics_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("*/metrics.json")}


def read_wandb_groups(folder: Path) -> set[str]:
    groups = set()
    for file in folder.glob("*/wandb/offline-run-*/*.wandb"):
        command = [WANDB, "leet", "inspect", "--json", file]
        inspected = subprocess.run(command, capture_output=True, text=True)
        records = [json.loads(line) for line in inspected.stdout.splitlines()]
        groups |= {record["run"]["run_group"] for record in records if "run" in record}
    return groups


def test_a_failed_run_is_reported_and_does_not_end_the_sweep(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(folder, "augment.translate=40,1", "bits=8", *SCRATCH)
    code, output, errors = run_program(*arguments)
    assert code == 1
    reason = "augment.translate=40 is not less than the images' 16 x 16 pixels. Lower it."
    assert f"{folder}/sweep.csv, sweep.png\n" in output
    assert output.endswith(
        f"1 of 2 runs failed. The same command with run_dir={folder} re-runs only the failed "
        "ones.\n"
    )
    finished, failed = read_table(folder)
    assert f"failed: {reason}\n" in output  # which names the run
    assert errors == f"error: {reason}\n"
    assert (failed["status"], failed["augment.translate"]) == ("failed", "40")
    assert failed["reason"] == reason
    assert (finished["status"], finished["augment.translate"]) == ("finished", "1")
    results = json.loads((folder / finished["run"] / "metrics.json").read_text())
    assert float(finished["map"]) == results["test"]["map"]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")

    # The same command leaves the finished run.
    before = read_metrics_files(folder)
    code, output, _ = run_program(*arguments)
    assert code == 1
    assert output.count(f"reusing the finished run in {folder / finished['run']}\n") == 1
    assert read_metrics_files(folder) == before

    # It refuses a run of other settings, such as defaults that have changed.
    saved = folder / finished["run"] / "config.yaml"
    saved.write_text(saved.read_text().replace("batch_size: 100", "batch_size: 50"))
    _, output, _ = run_program(*arguments)
    assert f"failed: {folder / finished['run']} holds a run with training=" in output
    assert [row["status"] for row in read_table(folder)] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bits=12,abc"], "bits=abc: "),
        (["bits=12", "training.hash.epochs=1,0"], "training.hash.epochs=0: "),
        (["evaluation.radius=2,20", "bits=24,12"], "evaluation.radius=20 is more than bits=12"),
        (["optimizer=adam,sgd", "seed=0,-1"], "seed=-1: "),
        (["bits=range(3,1)"], "bits=range(3,1): this sweep has no values. Name one at least."),
        (["bits=12,8", "method.tua=1,2"], "method.tua: there is no such setting."),
        (["bits=8,12,8"], "bits=8: two runs of this sweep have this folder."),
        (["bits=8,12", "hydra.sweep.subdir=one"], "one: two runs of this sweep have this folder."),
    ],
)
def test_a_wrong_setting_is_found_before_the_first_run(
    run_program: RunProgram, overrides: list[str], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    code, _, errors = run_program(*sweep_arguments(folder, *overrides, *SCRATCH))
    assert code == 2
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert not any(path.is_dir() for path in folder.glob("*"))


@pytest.mark.filterwarnings("error:Callback")
def test_settings_that_take_what_hydra_knows_later_are_not_refused(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    tags = "tags=['job ${hydra:job.num}']"
    code, _, errors = run_program(*sweep_arguments(folder, "bits=8", *SCRATCH, tags))
    assert code == 0, errors


def write_run(folder: Path, metrics: str, **overrides: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    (folder / "overrides.json").write_text(json.dumps(overrides))
    (folder / "metrics.json").write_text(metrics)


RECORD = {
    "bits": 8,
    "dataset": "digits",
    "method": {"_target_": "deephash.methods.joint.Joint"},
    "images": {"query": 3, "database": 5},
}
METRICS = {"test": {"map": 0.5}, "validation": {}, "seconds": {"total": 1}, "record": RECORD}


@pytest.mark.parametrize(
    "swept",
    [
        ["data_dir=a,b"],
        ["trainer=cpu,auto"],
        ["logger=csv,none"],
        ["tags=[a],[b]"],
        ["cache_dir=a,'a b'"],
        ["logger.wandb.mode=offline,online", "logger=wandb"],
        ["optimizer@training.hash.optimizer=adam,sgd", "bits=8,12"],
        ["dataset.path=a/b,a-b,'a b','a=b','a,b'"],
    ],
    ids=" ".join,
)
def test_runs_that_differ_in_any_setting_have_folders_of_their_own(
    run_program: RunProgram, swept: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    settings = [f"run_dir={folder}", "dataset=image_folder", "dataset.path=nowhere", "phases=full"]
    fixed = [a for a in settings if not swept[0].startswith(a.partition("=")[0] + "=")]
    code, output, errors = run_program("-m", *fixed, *swept)
    assert code == 1, errors
    rows = read_table(folder)
    names = [override.partition("=")[0] for override in swept]
    assert len(rows) == len({tuple(row[name] for name in names) for row in rows}) > 1
    assert f"{len(rows)} of {len(rows)} runs failed" in output
    for row in rows:
        assert re.fullmatch(rf"[\w.=,@+-]{{1,{MAX_NAME}}}", row["run"], re.ASCII)
        assert "phases" not in row["run"]  # is the same in all
        assert row["phases"] == "full"


def test_names_of_folders_are_short_and_differ() -> None:
    long = ",".join(f"training.hash.setting_{i}={i}" for i in range(18))
    names = ["bits=12,seed=0", "", "a=1 2", "a=1-2", "a=[1,2]", "a='1,2'", "a=ü", "a=é",
             long, long.replace("=17", "=18"), "a=/", "a=%2F",
             f"a={'x' * 62}", f"a={'x' * 63}"]  # fmt: skip
    folders = [folder_name(name) for name in names]
    assert folders[0] == names[0]
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(rf"[\w.=,@+-]{{1,{MAX_NAME}}}", f, re.ASCII) for f in folders)


def test_a_sweep_of_four_runs_prints_a_screen_that_names_them(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    epochs = "training.hash.epochs=2"
    arguments = sweep_arguments(folder, "bits=8,12", "seed=0,1", *SCRATCH, epochs)
    code, output, errors = run_program(*arguments)
    assert code == 0, errors
    lines = output.splitlines()
    assert len(lines) <= 24, output
    names = [f"bits={bits},seed={seed}" for bits in (8, 12) for seed in (0, 1)]
    for name in names:
        of_run = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
        assert re.match(r"hash 2/2  loss ", of_run[0])
        assert re.fullmatch(r"finished: test mAP 0\.\d{4}, \d+\.\d s", of_run[1])
        assert len(of_run) == 2
        log = (folder / name / "log.txt").read_text()
        for text in ("hash 1/2  loss", "mean average precision (mAP)", f"{folder}/{name}/plots/"):
            assert text in log
    assert sorted(path.name for path in folder.glob("*/")) == sorted(names)


def test_precision_recall_over_the_runs_is_a_mean_over_the_seeds(tmp_path: Path) -> None:
    for bits, seed, precision in [(8, 0, 0.5), (8, 1, 0.7), (12, 0, 0.9)]:
        record = RECORD | {"bits": bits}
        folder = tmp_path / f"bits={bits},seed={seed}"
        write_run(folder, json.dumps(METRICS | {"record": record}), bits=str(bits), seed=str(seed))
        (folder / "plots").mkdir()
        rest = "".join(f"{radius},0.1,1\n" for radius in range(1, bits + 1))
        points = f"radius,precision,recall\n0,{precision},0.25\n{rest}"
        (folder / "plots" / "precision_recall.csv").write_text(points)
    rows = [
        {"run": f"bits={bits},seed={seed}", "bits": bits, "seed": seed}
        for bits, seed in [(12, 0), (8, 0), (8, 1)]
    ]
    assert curves_by_settings(tmp_path, rows) == {
        "bits=8": (pytest.approx([0.6] + [0.1] * 8), [0.25] + [1] * 8),
        "bits=12": ([0.9] + [0.1] * 12, [0.25] + [1] * 12),
    }
    assert write_sweep_summary(tmp_path) == 0
    for name in ("sweep", "sweep_precision_recall"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_runs_of_another_kind_are_named_and_not_mixed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "bits=8", json.dumps(METRICS), bits="8")
    write_run(tmp_path / "bits=8,tags=[a]", json.dumps(METRICS))  # as version 0.2 named it
    (tmp_path / "bits=8,tags=[a]" / "overrides.json").unlink()
    assert write_sweep_summary(tmp_path) == 0
    assert [row["run"] for row in read_table(tmp_path)] == ["bits=8"]
    assert "Left out, as no runs of this sweep: bits=8,tags=[a]\n" in capsys.readouterr().out


def test_a_summary_holds_every_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "seed=0", json.dumps(METRICS))
    write_run(tmp_path / "seed=1", '{"test": {"map": 0.')
    write_run(tmp_path / "seed=2", "[]")
    (tmp_path / "seed=3").mkdir()
    (tmp_path / "seed=3" / "failed.txt").write_text("seed=3 is not lucky.\n")
    (tmp_path / "seed=3" / "overrides.json").write_text('{"seed": "3"}')
    (tmp_path / "notes").mkdir()  # no run
    (tmp_path / "notes" / "metrics.json").write_text("{}")
    assert write_sweep_summary(tmp_path) == 3
    rows = read_table(tmp_path)
    assert [row["status"] for row in rows] == ["finished", "failed", "failed", "failed"]
    for row in rows[1:3]:
        path = tmp_path / row["run"] / "metrics.json"
        assert row["reason"].startswith(f"{path} does not hold the metrics of a run. Delete it")
    output = capsys.readouterr().out
    assert "failed: seed=3 is not lucky.\n" in output  # its name once
    assert f"{tmp_path}/sweep.csv, sweep.png\n" in output


def test_no_plot_is_named_where_no_run_has_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "bits=8", "")
    assert write_sweep_summary(tmp_path) == 1
    assert f"{tmp_path}/sweep.csv\n" in capsys.readouterr().out
    assert not (tmp_path / "sweep.png").exists()


def test_a_summary_that_fails_does_not_end_in_success(tmp_path: Path) -> None:
    write_run(tmp_path / "bits=8", json.dumps(METRICS))
    (tmp_path / "sweep.csv").mkdir()  # cannot be written
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(SystemExit, match="1"):
        SweepSummary().on_multirun_end(config)


def test_a_stopped_sweep_names_the_command_that_continues_it(
    run_program: RunProgram,
    light_runs: None,
    send_signal_at: Callable[..., None],
    tmp_path: Path,
) -> None:
    own = tmp_path / "my conf"
    own.mkdir()
    settings = ["--config-dir", str(own), *QUICK, "tags=[a b]", "bits=8,12", *SCRATCH]
    send_signal_at("hash 1/1", signal.SIGINT)
    code, _, errors = run_program("-m", *settings, "cache_dir=cache")
    assert code == 130
    stopped, hint = errors.splitlines()[-2:]
    assert stopped.startswith("Stopped. Resume with: ")
    words = shlex.split(hint.removeprefix(f"Continue the sweep with: python {ROOT / 'train.py'} "))
    assert words[:2] == ["-m", f"hydra.searchpath=['file://{own}']"]
    assert words[-1].startswith(f"run_dir={tmp_path}/runs/")
    code, _, errors = run_program(*words)
    assert code == 0, errors
    assert [row["bits"] for row in read_table(Path(words[-1].removeprefix("run_dir=")))] == [
        "8", "12"
    ]  # fmt: skip


def test_runs_named_by_paths_lie_side_by_side(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    write_class_folders(tmp_path / "photos" / "all", per_class=40)
    small = ["recipe=digits", "dataset.size=16", "training.hash.batch_size=15", "evaluation.ks=[5]"]
    paths = "dataset.path=nowhere/photos,photos/all"
    code, output, _ = run_program(
        *sweep_arguments(folder, "dataset=image_folder", paths, *SCRATCH, *small)
    )
    assert code == 1
    assert "1 of 2 runs failed" in output
    failed, finished = read_table(folder)
    assert (failed["status"], failed["dataset.path"]) == ("failed", "nowhere/photos")
    assert (finished["status"], finished["dataset.path"]) == ("finished", "photos/all")
    assert sweep_name(folder / finished["run"]) == "/".join(folder.parts[-2:])  # its group in W&B


def test_plot_shows_mean_and_deviation_over_seeds() -> None:
    rows = [
        {"run": "", "status": "finished", "bits": bits, "seed": str(seed), "map": value, "tau": tau}
        for bits, seed, tau, value in [(8, 0, "1", 0.5), (8, 1, "1", 0.7), (16, 0, "1", 0.9),
                                       (8, 0, "2", 0.4)]
    ]  # fmt: skip
    assert varying_settings(rows) == ["bits", "seed", "tau"]
    assert map_by_bits(rows) == {
        "tau=1": {8: (pytest.approx(0.6), pytest.approx(0.02**0.5)), 16: (0.9, 0.0)},
        "tau=2": {8: (0.4, 0.0)},
    }


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return output, errors


@pytest.mark.slow
def test_a_killed_sweep_started_again_runs_only_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(
        folder, "launcher=joblib", "phases=scratch", "bits=8,12,16,20", "seed=0,1,2"
    )
    process = start_train(*arguments, cwd=tmp_path)
    for _ in range(4):
        wait_for_line(process, "bits=", ": finished: ")  # the last line of a run
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = read_metrics_files(folder)
    assert 4 <= len(before) < 12
    output, _ = finish(start_train(*arguments, cwd=tmp_path))
    assert output.count("reusing the finished run in") == len(before)
    table = output.index("┏")  # the lines above it come from two runs at a time
    lines = [line for line in output[:table].splitlines() if "[HYDRA]" not in line]
    assert all(re.match(r"bits=\d+,seed=\d: ", line) for line in lines)
    assert {path: path.read_bytes() for path in before} == before
    rows = read_table(folder)
    assert [row["status"] for row in rows] == ["finished"] * 12
    for row in rows:
        results = json.loads((folder / row["run"] / "metrics.json").read_text())
        record = results["record"]
        assert (record["bits"], record["seed"]) == (int(row["bits"]), int(row["seed"]))
        assert float(row["map"]) == results["test"]["map"]
    assert read_wandb_groups(folder) == {"/".join(folder.parts[-2:])}


@pytest.mark.slow
def test_of_several_processes_one_reports_why_a_run_failed(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(
        folder, "trainer=ddp_cpu", "phases=scratch", "logger.wandb.mode=online"
    )  # W&B refuses without a key
    output, errors = start_train(*arguments, cwd=tmp_path, launcher=TORCHRUN).communicate()
    (row,) = read_table(folder)
    assert "W&B did not start" in row["reason"]
    assert output.count("1 of 1 runs failed") == 1
    assert errors.count("error: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
        ["launcher=ray", "hydra.launcher.ray.init.address=null",
         "hydra.launcher.ray.remote={num_cpus:1,num_gpus:0}"],
    ],
    ids=["submitit", "ray"],
)  # fmt: skip
def test_launchers_run_a_sweep(launcher: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(folder, *launcher, "bits=8,12", *SCRATCH)
    finish(start_train(*arguments, cwd=tmp_path))
    assert [row["status"] for row in read_table(folder)] == ["finished"] * 2
