"""Run folders that are foreign, damaged or oddly named; runs resumed on another device."""

import json
import logging
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ComposeRun, RunProgram, assert_same_codes, resume_run
from omegaconf import OmegaConf

from deephash.core.errors import UserError
from deephash.experiment.run import run

pytestmark = pytest.mark.usefixtures("light_runs")


@pytest.mark.parametrize(
    ("precision", "order"),
    [
        ("64-true", ["pretrain", "init"]),
        ("64-true", ["hash"]),
        ("bf16-true", ["pretrain", "init"]),
        ("16-true", ["pretrain"]),  # the loss of the others leaves the range of float16
    ],
)
def test_a_run_of_any_precision_is_resumed_after_each_phase(
    precision: str, order: list[str], compose_run: ComposeRun, tmp_path: Path
) -> None:
    whole = tmp_path / "run"
    run(compose_run(f"trainer.precision={precision}", f"phases.order=[{','.join(order)}]"))
    for finished in range(1, len(order) + 1):
        folder = tmp_path / f"resumed{finished}"
        shutil.copytree(whole, folder)
        (folder / "metrics.json").unlink()
        shutil.rmtree(folder / "codes")
        for name in order[finished:]:
            (folder / "checkpoints" / f"{name}.ckpt").unlink()
        resume_run(folder)
        assert_same_codes(whole, folder)


def test_another_trainer_changes_where_a_run_goes_on_but_not_how_it_computes(
    compose_run: ComposeRun, run_program: RunProgram, tmp_path: Path
) -> None:
    settings = ["phases=scratch", "trainer.precision=64-true", "+trainer.gradient_clip_val=0.5"]
    run(compose_run(*settings))
    record = tmp_path / "run" / "record.json"
    for arguments, precision in (
        (["trainer=cpu"], "64-true"),
        (["trainer.devices=1"], "64-true"),
        (["trainer=cpu", "trainer.precision=bf16-true"], "bf16-true"),
    ):
        (tmp_path / "run" / "metrics.json").unlink()
        code, output, errors = run_program(f"resume={tmp_path / 'run'}", *arguments)
        assert (code, errors) == (0, ""), arguments
        assert json.loads(record.read_text())["precision"] == precision
        is_told = "resumed with other code or settings than before: changed is trainer.precision"
        assert (is_told in output) == (precision != "64-true")


CONFIGS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: content.index(b"training:") + 20],
    "binary": lambda content: bytes(range(256)),
    "latin-1": lambda content: "tags: [Zürich]\n".encode("latin-1") + content,
    "a list": lambda content: b"- training\n",
    "a number": lambda content: b"5\n",
    "a tag": lambda content: content + b"more: !!python/object/apply:os.getcwd []\n",
    "a tag of its own": lambda content: content + b"more: !mine 3\n",
    "duplicate keys": lambda content: content + b"bits: 9\n",
    "not YAML": lambda content: content + b"  : [\n",
    "without data": lambda content: content.replace(b"dataset:", b"other:"),
    "text for settings": lambda content: content.replace(
        b"dataset:\n  _target_: deephash.data.datasets.digits.digits", b"dataset: digits"
    ),
    "a list for settings": lambda content: content.replace(b"logger: {}", b"logger: [1]"),
    "null for settings": lambda content: content.replace(b"method:\n", b"method: null\nx:\n"),
    "anchors": lambda content: content + b"a: &a [b]\nc: *a\n",
}


@pytest.mark.parametrize("change", list(CONFIGS))
def test_settings_that_cannot_be_read_are_one_sentence(change: str, scratch_run: Path) -> None:
    (scratch_run / "metrics.json").unlink()
    path = scratch_run / "config.yaml"
    before, after = path.read_bytes(), CONFIGS[change](path.read_bytes())
    assert before != after
    path.write_bytes(after)
    files = {path: path.read_bytes() for path in scratch_run.rglob("*") if path.is_file()}
    for arguments in ([], ["data_dir=elsewhere"]):
        with pytest.raises(UserError) as error:
            resume_run(scratch_run, *arguments)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400
    assert {path: path.read_bytes() for path in files} == files


METRICS: list[bytes] = [b"", b"{", b"[]", b"5", b'{"test": {}}', b'{"test": 3}', bytes(range(256))]


@pytest.mark.parametrize("content", METRICS)
def test_metrics_that_are_cut_are_one_sentence(content: bytes, scratch_run: Path) -> None:
    (scratch_run / "metrics.json").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics.json does not hold the metrics of a run"):
        resume_run(scratch_run)
    (scratch_run / "metrics.json").unlink()
    resume_run(scratch_run)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "record.json", "split.npz"])
def test_a_folder_in_place_of_a_file_is_refused_before_training(
    name: str, compose_run: ComposeRun, scratch_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (scratch_run / "metrics.json").unlink()
    (scratch_run / name).unlink(missing_ok=True)
    (scratch_run / name).mkdir()
    with pytest.raises(UserError, match=rf"{name}"):
        resume_run(scratch_run)
    with pytest.raises(UserError, match=rf"{name} must be a file|already holds a run"):
        run(compose_run("phases=scratch", folder=scratch_run.name))
    assert "hash 1/1" not in caplog.text


@pytest.mark.parametrize("name", ["checkpoints", "codes", "plots"])
def test_a_file_in_place_of_a_folder_is_refused_before_training(
    name: str, compose_run: ComposeRun, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).touch()
    with pytest.raises(UserError, match=rf"{name} must be a folder"):
        run(compose_run("phases=scratch"))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_double_colon_in_the_name_is_refused(compose_run: ComposeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'::' cannot be in its name"):
        run(compose_run(folder="a::b"))
    assert not (tmp_path / "a::b").exists()


@pytest.mark.parametrize("name", ["http_run", "https:/x", "s3:/bucket", "memory"])
def test_a_relative_name_is_not_taken_for_a_url(
    name: str,
    compose_run: ComposeRun,
    monkeypatch: pytest.MonkeyPatch,
    send_signal_at: Callable[..., None],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = compose_run("phases=scratch", "training.hash.epochs=3", "logger=csv")
    run(cfg)
    cfg.run_dir = name
    send_signal_at("hash 2/3", 2)
    with pytest.raises(SystemExit):
        run(cfg)
    assert (tmp_path / name / "checkpoints" / "hash.unfinished.ckpt").is_file()
    resume_run(Path(name))
    assert_same_codes(tmp_path / "run", tmp_path / name)


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(scratch_run: Path) -> None:
    left = scratch_run / "checkpoints" / ".hash.unfinished.77.part.ckpt"
    left.write_bytes(b"half")
    (scratch_run / "metrics.json").unlink()
    resume_run(scratch_run)
    assert not left.exists()


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["protocol=hashnet", "protocol.queries=0"], "query"),
        (["protocol=hashnet", "protocol.train=0", "protocol.queries=10"], "train"),
        (["protocol.queries_per_class=0"], "query"),
        (["protocol.train_per_class=0"], "train"),
        (["protocol=10-percent", "protocol.query_fraction=0"], "query"),
        (["protocol=hashnet", "protocol.queries=1797", "protocol.train=0"], ""),
        (["protocol.queries_per_class=100000"], ""),
    ],
    ids=str,
)
def test_an_empty_part_is_refused_before_training(
    overrides: list[str],
    part: str,
    compose_run: ComposeRun,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    with caplog.at_level(logging.INFO, "deephash"), pytest.raises(UserError) as error:
        run(compose_run(*overrides))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert "epoch" not in caplog.text


@pytest.mark.parametrize("value", ["1", "[a]", "{a: 1}", "true", "''", "null"])
def test_resume_takes_a_folder(value: str, run_program: RunProgram) -> None:
    code, _, errors = run_program(f"resume={value}", "run_dir=runs/x", "bits=0")
    assert code == 2
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    assert not Path("runs").exists()


def test_the_command_to_resume_allows_the_packages_of_the_run(
    compose_run: ComposeRun,
    send_signal_at: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cfg = compose_run("phases=scratch", "training.hash.epochs=50")
    node: Any = OmegaConf.to_container(cfg.training.hash.scheduler)
    cfg.training.hash.scheduler = node | {"_target_": f"{__name__}.my_schedule"}
    send_signal_at("hash 2/50", 2)
    with pytest.raises(SystemExit):
        run(cfg)
    assert f"resume={cfg.run_dir} allow=[{__name__}]\n" in capsys.readouterr().err


@pytest.mark.parametrize("size", [300, 3_000, 30_000, 250_000])
def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(
    size: int, compose_run: ComposeRun, scratch_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(UserError, match=rf"{folder}/.* cannot be written.*File too large"):
            run(compose_run("phases=scratch"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(folder.rglob("*.part*"))
    if (folder / "config.yaml").is_file():
        resume_run(folder)
    else:
        run(compose_run("phases=scratch"))
    assert_same_codes(scratch_run, folder)


def my_schedule(step: int, total_steps: int, *, warmup: float) -> float:
    return 1.0
