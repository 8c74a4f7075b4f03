"""Searches for settings: continued, stopped, and shared by two processes."""

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, ComposeRun, RunProgram, start_train
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from deephash.core.errors import UserError
from deephash.experiment.settings import validate_settings
from deephash.experiment.tuning import _as_overrides, _check_same_settings, tune

optuna = pytest.importorskip("optuna")
from optuna.storages.journal import JournalFileBackend, JournalStorage  # noqa: E402

SPACE = (
    "tuning.space=[{setting:method.tau,low:1,high:8,log:true},"
    "{setting:training.hash.batch_size,low:50,high:100},"
    "{setting:method.surrogate,choices:[bilinear,factored]}]"
)
NAMES = ("method.tau", "training.hash.batch_size", "method.surrogate")


def tuning_arguments(folder: Path, *overrides: str) -> list[str]:
    places = [f"run_dir={folder}", f"cache_dir={folder.parent / 'cache'}"]
    return ["tuning=optuna", *places, *QUICK, "logger=none", *overrides]


def start_tuning(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    return start_train(*tuning_arguments(folder, *overrides), cwd=folder.parent)


def read_trials(folder: Path) -> list["optuna.trial.FrozenTrial"]:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name="search", storage=storage).get_trials()


def test_a_search_goes_on_to_more_trials(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder, cache = tmp_path / "search", tmp_path / "cache"
    for count in (1, 2):
        code, output, errors = run_program(
            *tuning_arguments(
                folder, "tags=[a b,c]", SPACE, f"tuning.trials={count}", "phases=pretrained"
            )
        )
        assert code == 0, errors
        trials = read_trials(folder)
        assert len(trials) == count
    for trial in trials:
        results = json.loads((folder / f"trial-{trial.number}" / "metrics.json").read_text())
        assert trial.value == results["validation"]["val/map"]  # not of the test queries
        assert results["record"]["method"]["tau"] == trial.params["method.tau"]
        assert 1 <= trial.params["method.tau"] <= 8
        assert isinstance(trial.params["method.tau"], float)  # as in conf/, whatever its bounds
        assert isinstance(trial.params["training.hash.batch_size"], int)
    best = max(trials, key=lambda trial: trial.values[0])
    proposed = [f"{name}={best.params[name]}" for name in NAMES]
    settings = [*QUICK, "logger=none", "tags=[a b,c]", "phases=pretrained", *proposed]
    assert output.endswith(
        f"best: python {ROOT / 'train.py'} {shlex.join([f'cache_dir={cache}', *settings])}\n"
    )

    # The command, as it is printed, trains the same model.
    words = shlex.split(output.splitlines()[-1].partition("train.py ")[2])
    code, _, errors = run_program(*words, f"run_dir={tmp_path / 'best'}")
    assert code == 0, errors
    results = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert results["validation"]["val/map"] == best.value


def test_a_stopped_trial_is_continued(
    run_program: RunProgram,
    light_runs: None,
    send_signal_at: Callable[..., None],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "search"
    arguments = tuning_arguments(
        folder, SPACE, "tuning.trials=1", "phases=scratch", "training.hash.epochs=3"
    )
    send_signal_at("hash 2/3", signal.SIGTERM)
    code, _, errors = run_program(*arguments)
    assert code == 130, errors
    (stopped,) = read_trials(folder)
    assert stopped.state == optuna.trial.TrialState.WAITING
    hint, _, command = errors.splitlines()[-1].partition("train.py ")
    assert hint.startswith("Continue the search with: python ")
    assert shlex.split(command) == arguments
    code, output, errors = run_program(*arguments)
    assert code == 0, errors
    assert "from where it stopped" in output
    (trial,) = read_trials(folder)
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.params == stopped.params


@pytest.mark.slow
def test_two_processes_share_a_search(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    both = [start_tuning(folder, SPACE, "tuning.trials=3", "phases=pretrained") for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    trials = read_trials(folder)
    assert 3 <= len(trials) <= 4  # the last two may have started together
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}


@pytest.mark.slow
def test_a_stopped_trial_is_continued_by_one_of_two_processes(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    overrides = [SPACE, "tuning.trials=1", "phases=scratch", "training.hash.epochs=4"]
    process = start_tuning(folder, *overrides)
    log = folder / "trial-0" / "log.txt"
    while not (log.is_file() and "hash 2/4" in log.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    (stopped,) = read_trials(folder)
    both = [start_tuning(folder, *overrides) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert sum(output.count("from where it stopped") for output in outputs) == 1
    continued, *_ = read_trials(folder)  # the other process may have started a second one
    assert continued.state == optuna.trial.TrialState.COMPLETE
    assert continued.params == stopped.params


def test_a_search_by_launched_processes_is_refused(
    compose_run: ComposeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_run("tuning=optuna", "trainer=ddp_cpu")
    with pytest.raises(UserError, match=r"trainer.devices=2: each of the 2 processes would search"):
        tune(cfg)
    monkeypatch.setenv("WORLD_SIZE", "4")  # as torchrun does
    with pytest.raises(UserError, match="4 processes were launched together"):
        tune(cfg)
    assert not Path(cfg.run_dir).exists()


def space_of(*spaces: str) -> str:
    return f"tuning.space=[{','.join(f'{{{space}}}' for space in spaces)}]"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (space_of("setting:method.tua,low:1,high:8"),
         "tuning.space: there is no setting 'method.tua'. Did you mean 'tau'?"),
        (space_of("setting:training.hsh.epochs,low:1,high:8"),
         "tuning.space: there is no setting 'training.hsh.epochs'. Did you mean 'hash'?"),
        (space_of("setting:optimizer.lr,low:1,high:8"),
         "tuning.space: optimizer.lr is a setting of each phase. Write "
         "training.hash.optimizer.lr, or name another phase."),
        (space_of("setting:augment,choices:[1]"),
         "tuning.space: augment is a group of settings, not one value. Name one of them: "
         "augment.translate, augment.flip, augment.cutout."),
        (space_of("setting:training.hash.param_groups,low:1,high:8"),
         "tuning.space: training.hash.param_groups=1: "),
        (space_of("setting:run_dir,choices:[a,b]"),
         "tuning.space: run_dir does not change what is trained. Leave it out."),
        (space_of("setting:tuning.trials,low:1,high:3"),
         "tuning.space: tuning.trials does not change what is trained. Leave it out."),
        (space_of("setting:method.tau,low:8,high:1"),
         "tuning.space: method.tau: low=8 is more than high=1. Exchange them."),
        (space_of("setting:method.tau,low:0,high:1,log:true"),
         "tuning.space: method.tau: low=0 has no logarithm. Raise it above 0, or omit log."),
        (space_of("setting:method.tau,low:0,high:inf"),
         "tuning.space[0].high=inf: "),
        (space_of("setting:method.tau,low:1,high:2", "setting:method.tau,choices:[3]"),
         "tuning.space names method.tau twice. Keep one."),
        (space_of("setting:method.tau,choices:[]"), "tuning.space[0].choices=[]: "),
        (space_of("setting:method.tau,low:1,high:2,step:4"),
         "tuning.space[0].step: there is no such setting."),
        (space_of("setting:method.tau,low:a,high:2"), "tuning.space[0].low=a: "),
        (space_of("setting:bits,low:0,high:8"), "tuning.space: bits=0: "),
        (space_of("setting:bits,low:8.0,high:16"), "tuning.space: bits=10.5"),
        (space_of("setting:bits,choices:[8,many]"), "tuning.space: bits=many: "),
        ("tuning.space=[]", "tuning.space=[]: "),
        ("tuning.trials=0", "tuning.trials=0: "),
        ("tuning.trials=null", "tuning.trials=null: "),
        ("tuning.trials=abc", "tuning.trials=abc: "),
        ("resume=runs/a", "resume=runs/a with tuning: a search continues by its own command"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_refused_before_its_study_is_opened(
    compose_run: ComposeRun, override: str, message: str
) -> None:
    cfg = compose_run("tuning=optuna", override)
    with pytest.raises(UserError) as raised:
        tune(cfg)
    assert str(raised.value).startswith(message)
    assert not Path(cfg.run_dir).exists()


def test_a_setting_that_is_null_is_searched(compose_run: ComposeRun, light_runs: None) -> None:
    spaces = ("setting:trainer.profiler,choices:[null]", "setting:augment.cutout,low:0,high:2")
    cfg = compose_run(
        "tuning=optuna", "tuning.trials=1", "phases=scratch", "+trainer.profiler=null",
        "+trainer.gradient_clip_val=null",
        space_of(*spaces, "setting:trainer.gradient_clip_val,low:1,high:2.5"),
    )  # fmt: skip
    tune(cfg)
    (trial,) = read_trials(Path(cfg.run_dir))
    assert trial.params["trainer.profiler"] is None
    assert isinstance(trial.params["augment.cutout"], int)
    saved = OmegaConf.load(Path(cfg.run_dir) / "trial-0" / "config.yaml")
    clip = saved.trainer.gradient_clip_val
    assert clip == trial.params["trainer.gradient_clip_val"]
    assert 1 <= clip <= 2.5


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("setting:method.tau,low:1,high:8", "holds a search over method.surrogate, and tuning"),
        ("setting:method.surrogate,choices:[factored]", "or other choices, of method.surrogate"),
    ],
)
def test_a_study_of_another_space_is_not_continued(
    compose_run: ComposeRun, space: str, message: str
) -> None:
    cfg = compose_run("tuning=optuna", space_of(space))
    folder = Path(cfg.run_dir)
    folder.mkdir()
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    study = optuna.create_study(storage=storage, study_name="search", direction="maximize")
    both = optuna.distributions.CategoricalDistribution(["bilinear", "factored"])
    study.tell(study.ask({"method.surrogate": both}), 0.5)
    with pytest.raises(UserError, match=message):
        tune(cfg)
    assert [trial.state for trial in read_trials(folder)] == [optuna.trial.TrialState.COMPLETE]


def test_a_study_of_other_settings_is_not_continued(compose_run: ComposeRun) -> None:
    def check(*overrides: str) -> None:
        settings = validate_settings(compose_run("tuning=optuna", *overrides))
        _check_same_settings(study, settings, {"method.tau"})

    study = optuna.create_study()
    check("bits=12", "data_dir=here", "dataset=cifar10")
    check("bits=12", "data_dir=there", "dataset=cifar10", "method.tau=2", "tuning.trials=7")
    check("bits=12", "data_dir=here", "dataset=cifar10", "trainer=cpu", "tags=[again]")
    with pytest.raises(UserError, match="holds a search with bits=12, this one has bits=4. Name"):
        check("bits=4", "data_dir=here", "dataset=cifar10")
    with pytest.raises(UserError, match=r"training\.hash\.optimizer\.lr=.*this one has .*=0.125"):
        check("bits=12", "data_dir=here", "dataset=cifar10", "training.hash.optimizer.lr=0.125")


def test_a_trial_that_breaks_off_has_failed(
    compose_run: ComposeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_run("tuning=optuna", "tuning.trials=1", "phases=scratch")
    (Path(cfg.run_dir) / "trial-0" / "failed.txt").mkdir(parents=True)  # cannot be replaced
    with pytest.raises(UserError, match="tuning: 1 trials failed"):
        tune(cfg)
    assert [trial.state for trial in read_trials(Path(cfg.run_dir))] == [
        optuna.trial.TrialState.FAIL
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [(1e-05, "1e-05"), (None, "null"), (True, "True"), ("a b", "a b"), ("a,b", "'a,b'"),
     ("true", "'true'"), ("it's", "'it\\'s'"), ("1", "'1'")],
)  # fmt: skip
def test_proposals_are_written_as_hydra_reads_them(values: object, text: str) -> None:
    (override,) = _as_overrides({"method.tau": values})
    assert override == f"method.tau={text}"
    assert OverridesParser.create().parse_override(override).value() == values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["tuning.trials=2", "tuning.space=[{setting:method.tau,low:-2,high:-1}]"],
            "2 trials failed",
        ),
        (["-m"], "-m with tuning=optuna: a search starts its runs itself. Omit -m."),
    ],
    ids=["failures", "multirun"],
)
def test_an_impossible_search_is_explained(
    run_program: RunProgram, overrides: list[str], message: str, tmp_path: Path
) -> None:
    code, _, errors = run_program(*tuning_arguments(tmp_path / "search", *overrides))
    assert code == 2
    assert message in errors
