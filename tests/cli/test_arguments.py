"""Hostile command lines: one sentence with value, place and fix; exit code 2, no trace."""

# ruff: noqa: E501  # a row holds the whole answer

from pathlib import Path

import pytest
from conftest import RunProgram, compose_config, options
from typer.testing import CliRunner

import deephash
from deephash.cli.entry import app

OPTIMIZERS = "adam, adamw, muon, sgd"
DATASETS = ", ".join(options("dataset"))
OWN_FILE = "A file of your own needs --config-dir FOLDER or hydra.searchpath=[pkg://mylab.conf]."

ANSWERS = [  # arguments, the whole answer
    # Options.
    ("--foo=1", "--foo=1: there is no such option. Did you mean '--info'?"),
    ("--bits 12", "--bits: there is no such option. Settings are written without dashes: bits=12"),
    ("--bits=12", "--bits=12: there is no such option. Settings are written without dashes: bits=12"),
    ("-bits=12", "-bits=12: there is no such option. Settings are written without dashes: bits=12"),
    ("--config-path x", "--config-path: there is no such option. Did you mean '--config-dir'?"),
    ("bits=12 -c", "-c: the option needs a value: job, hydra, all."),
    ("--cfg jobs", "--cfg jobs: the option needs a value: job, hydra, all."),
    ("--config-dir", "--config-dir: the option needs a value: a folder."),
    ("--config-dir=", "--config-dir: the option needs a value: a folder."),
    ("bits=12 --resolve", "--resolve goes only with --cfg job."),
    ("-m --cfg job", "--multirun and --cfg exclude each other. Omit one."),
    ("--shell-completion bash", "--shell-completion: write -sc install=bash, or zsh or fish in its place."),
    ("-sc query=bash", "--shell-completion: write -sc install=bash, or zsh or fish in its place."),
    ("--run=3", "--run=3: --run takes no value. Write --run"),
    ("--cfg job --package [", "--package [: there is no such setting."),
    # The search path.
    ("hydra.searchpath=null", "hydra.searchpath=null: a list of folders and packages is needed: hydra.searchpath=[FOLDER,pkg://PACKAGE]"),
    ("hydra.searchpath=5", "hydra.searchpath=5: a list of folders and packages is needed: hydra.searchpath=[FOLDER,pkg://PACKAGE]"),
    ("hydra.searchpath=[foo://x]", "hydra.searchpath: foo://x is neither file://FOLDER nor pkg://PACKAGE."),
    ("~hydra.searchpath", "~hydra.searchpath: give one hydra.searchpath=[...], without '+' or '~'. Name all packages and folders in it."),
    # Grammar.
    ("bits 12", "'bits' gives no setting a value. Write bits=12"),
    ("bits:12", "'bits:12' gives no setting a value. Write bits=12"),
    ("=12", "'=12' names no setting. Write NAME=VALUE."),
    ("@a=12", "'@a=12' names no setting. Write NAME=VALUE."),
    ("12", "'12' gives no setting a value. Write NAME=VALUE"),
    ("training..hash=12", "training..hash=12: 'training..hash' cannot be the name of a setting. Write NAME=VALUE."),
    ("bits==12", "bits==12: write one '=': bits=12"),
    ("bits=[1,2", "bits=[1,2: '[' is not closed. Quote an argument with spaces, 'bits=[A, B]'. If it is part of the text, write \"bits='[1,2'\""),
    ("run_dir=a(b", "run_dir=a(b: '(' is not closed. If it is part of the text, write \"run_dir='a(b'\""),
    ("bits='12", "bits='12: a ' is not closed. If it is part of the text, write 'bits='\"'\"'\\'\"'\"'12'\"'\"''"),
    ("bits=1,", "bits=1,: a value beside the comma is missing. If it is part of the text, write \"bits='1,'\""),
    ("run_dir=a=b", "run_dir=a=b: this value cannot be read. If it is a text, quote it twice: \"run_dir='a=b'\""),
    ("dataset.path=~/photos", "dataset.path=~/photos: '~' is not replaced by your home folder here. Write the folder in full, or dataset.path=\"$HOME/photos\""),
    ("dataset=image_folder dataset.path='~/photos'", "dataset.path=~/photos: there is no such folder or list. '~' is not replaced: write $HOME. Set dataset.path to a folder of class folders, or a list (.csv, .tsv, .parquet, .txt)."),
    ("tags=[é,b]", "tags=[é,b]: this list cannot be read. Quote its entries: \"tags=['é','b']\""),
    ("évaluation.radius=1", "évaluation.radius=1: 'évaluation.radius' cannot be the name of a setting. Write NAME=VALUE."),
    ("bits=${foo}", "bits: Interpolation key 'foo' not found."),
    ("run_dir=a,b", "run_dir=a,b: several values need -m. A list is written run_dir=[A,B], a text with such characters \"run_dir='a,b'\""),
    ("bits=interval(1,3) -m", "bits=interval(1,3): a sweep takes values, bits=A,B. tuning=optuna searches an interval."),
    ("-m bits=glob(*)", "bits=glob(*): glob chooses among the files of a group. List the values."),
    *((f"-m bits={text}", f"bits={text}: this range has no values. Write range(FROM,TO).") for text in ("range(0,1,0)", "range(8,nan)")),
    *((f"-m bits={text}", f"bits={text}: more than 10,000 values. Name fewer.") for text in ("range(8,inf)", "range(1e9)")),
    ("-m bits=choice(8,12),16", "bits=choice(8,12),16: a sweep within another. Write bits=A,B,C."),
    ("-m resume=A,B", "resume=A,B cannot be swept: resume one run without -m. A sweep is continued by its command with run_dir= of its folder."),
    ("-m bits=12 run_dir=a,b", "run_dir=a,b: the runs of a sweep lie below one run_dir. Name one."),
    ("+bits=12", "+bits=...: bits has a value already. Omit the '+'."),
    ("~nope", "nope: there is no such setting. `--help` lists all settings."),
    ("~resume", "~resume: this setting cannot be removed. Omit it."),
    *((f"~{name}", f"~{name}: this setting cannot be removed. Omit it.") for name in ("bits", "tags", "evaluation", "phases.order", "training.hash.epochs")),
    ("~seed=0", "~seed: this setting cannot be removed. Omit it."),
    # Groups.
    *((f"{choice}", f"{choice}: choose one of {OPTIMIZERS}.") for choice in ("optimizer@training.hash.optimizer=null", "optimizer@training.hash.optimizer=")),
    ("-m optimizer=adamw,null", "optimizer=adamw,null: 'null' cannot be one of several choices. Run it without optimizer=."),
    ("optimizer@training.hash.optimiser=sgd", "optimizer@training.hash.optimiser=sgd: no optimizer is used at training.hash.optimiser. Did you mean 'optimizer@training.hash.optimizer'?"),
    ("method@x=joint", "method@x=joint: no method is used at x. Write method=..."),
    ("optimizer=5", f"optimizer=5: optimizer has no choice '5'. Valid: {OPTIMIZERS}."),
    ("optimizer=[adamw,sgd]", f"optimizer=[adamw,sgd]: optimizer takes one choice, without brackets: {OPTIMIZERS}."),
    ("dataset=[digits]", f"dataset=[digits]: dataset takes one choice, without brackets: {DATASETS}."),
    ("dataset=true", f"dataset=true: dataset has no choice 'True'. Valid: {DATASETS}."),
    ("dataset=digits,mnist", "dataset=digits,mnist: several choices need -m."),
    ("~dataset", f"~dataset: choose one of {DATASETS}, by dataset=..."),
    ("+dataset=digits", "+dataset=digits: dataset is chosen without a '+'. Omit it."),
    ("logger=[csv,null]", "logger=[csv,null]: logger has no choice 'null'. Did you mean 'none'?"),
    ("logger=[csv,x]", f"logger=x: logger has no choice 'x'. Valid: csv, none, tensorboard, wandb. {OWN_FILE}"),
    ("dataset=mine", f"dataset=mine: dataset has no choice 'mine'. Valid: {DATASETS}. {OWN_FILE}"),
    ("dataset=cifar100", "dataset=cifar100: dataset has no choice 'cifar100'. Use dataset=torchvision dataset.name=CIFAR100"),
    ("dataset=CIFAR10", "dataset=CIFAR10: dataset has no choice 'CIFAR10'. Did you mean 'cifar10'?"),
    ("backbone=resnet50", "backbone=resnet50: backbone has no choice 'resnet50'. Did you mean 'lenet'? A model of timm: backbone=timm backbone.model_name=resnet50"),
    ("phases=ful", "phases=ful: phases has no choice 'ful'. Did you mean 'full'?"),
    ("optimizer.lr=1", f"optimizer.lr: there is no such setting. Choose one by optimizer={OPTIMIZERS}."),
    ("logger=none logger.foo=1", "logger.foo: there is no such setting. Choose one by logger=csv, none, tensorboard, wandb."),
    ("logger=none logger.wandb.mode=offline", "logger.wandb.mode: there is no such setting. Choose logger=wandb, which has such settings."),
    ("dataset=torchvision dataset.options.split=letters", "dataset.options.split: there is no such setting. Write 'dataset.options={split: ...}'"),
    ("protocol.foo=1", "protocol.foo: there is no such setting. Valid: _target_, queries_per_class, train_in_database, train_per_class, validation."),
    # Hydra's own settings.
    ("launcher.n_jobs=2", "launcher.n_jobs=2: the launcher's settings are Hydra's own. Write hydra.launcher.n_jobs=2"),
    ("hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs: the launcher has no such setting. Choose one: launcher=joblib, ray, slurm."),
    ("hydra.foo=1", "hydra.foo: Hydra has no such setting. `--cfg hydra` lists its settings."),
    ("hydra.job.env_copy=[NOPE]", "hydra.job.env_copy=[NOPE]: Hydra fails with this setting (KeyError 'NOPE')."),
    ("hydra.job.env_copy=[NOPE] --cfg job", "hydra.job.env_copy=[NOPE]: Hydra fails with this setting (KeyError 'NOPE')."),
    ("hydra.hydra_logging.version=9", "hydra.hydra_logging.version=9: Hydra fails with this setting (ValueError Unsupported version: 9)."),
    ("hydra.mode=FOO", "hydra.mode=FOO: Invalid value 'FOO', expected one of [RUN, MULTIRUN]."),
    ("hydra=5", "hydra=5: choose a file of a group of Hydra's, hydra/GROUP=CHOICE."),
    ("-m run_dir=/dev/null/x", "/dev/null/x: Not a directory. Name another folder."),
    # Values.
    ("bits=10**10", "bits=10**10: must be an integer."),
    ("bits=10000000000", "bits=10000000000: must be at most 6400."),
    ("seed=100000000000000000000000", "seed=100000000000000000000000: must be at most 9223372036854775807."),
    *((f"+trainer.strategy={name}", f"trainer.strategy={name}: processes run the same command. Use ddp.") for name in ("ddp_spawn", "ddp_fork_find_unused_parameters_true")),
    ("bits=true", "bits=true: must be an integer."),
    ("training.hash.epochs=1.5", "training.hash.epochs=1.5: must be an integer."),
    ("training.hash.batch_size=1", "training.hash.batch_size=1: must be at least 2."),
    ("training.hash.objective=sing", "training.hash.objective=sing: must be 'classify' or 'hash'."),
    ("evaluation.ks=[a]", "evaluation.ks[0]=a: must be an integer."),
    ("evaluation=null", "evaluation=null: must be settings, {NAME: VALUE}."),
    ("evaluation.batch_size=10000000000000000000", "evaluation.batch_size=10000000000000000000: must be at most 2147483647."),
    ("allow=[my.lab]", "allow[0]=my.lab: must be the name of a package."),
    ("tuning=optuna tuning.space=[{setting:bits,choices:[[1]]}]", "tuning.space[0].choices[0]=[1]: must be a single value."),
    ("tags=[5]", "tags[0]=5: must be a text. Quote it: \"tags=['5']\""),
    ("run_dir=5", "run_dir=5: must be a path. Quote it: \"run_dir='5'\""),
    ("run_dir=", "run_dir=: must be a path."),
    ("cache_dir=", "cache_dir=: must be a path."),
    ("resume=", "resume=: must be a path."),
    ("resume=1", "resume=1: must be a run's folder."),
    ("resume=[a]", "resume=['a']: must be a run's folder."),
    ("trainer.max_epochs=3", "trainer.max_epochs: there is no such setting. Use training.<phase>.epochs."),
    ("+trainer.max_epochs=3", "trainer.max_epochs: the run sets this itself. Use training.<phase>.epochs."),
    ("+trainer.max_steps=3", "trainer.max_steps: the run sets this itself. Use debug=fewsteps."),
    ("+trainer.callbacks=[]", "trainer.callbacks: the run sets this itself. Omit it."),
    ("+trainer.limit_train_batches=0", "trainer.limit_train_batches=0: must be greater than 0."),
    ("trainer.devices=0", "trainer.devices=0: must be greater than 0."),
    ("trainer.num_nodes=2", "trainer.num_nodes: there is no such setting. If Lightning's Trainer has it, add it by +trainer.num_nodes=..."),
    ("tuning=optuna tuning.space=[]", "tuning.space=[]: must not be empty."),
]  # fmt: skip

LATER_ANSWERS = [  # known only when Hydra starts, the data is loaded or the model built
    *(
        (f"~{name}", f"~{name}: this setting cannot be removed. Omit it.")
        for name in ("method.tau", "trainer.precision")
    ),
    ("hydra.verbose=5", "hydra.verbose=5: Hydra fails with this setting (AssertionError"),
    ("training.hash.optimizer.lr=true", "training.hash.optimizer.lr=true: must be a number."),
    ("training.hash.optimizer.lr=nan", "training.hash.optimizer.lr=nan: must be a finite number."),
    ("protocol.queries_per_class=-5", "protocol.queries_per_class=-5: must be at least 0."),
    (
        "+training.hash.optimizer={foreach:true,fused:true}",
        "training.hash.optimizer={'lr': 0.02, 'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.0005, 'foreach': True, 'fused': True}: torch.optim.SGD refuses it: `fused` and `foreach` cannot be `True` together.",
    ),
    ("training.hash.optimizer.lr=inf", "training.hash.optimizer.lr=inf: must be a finite number."),
    ("backbone.widths=5", "backbone.widths=5: must be a list."),
    *(
        (f"backbone.widths={widths}", f"backbone.widths={widths}: one or more positive numbers")
        for widths in ("[]", "[0]", "[-1]")
    ),
]


@pytest.mark.parametrize(("line", "answer"), ANSWERS, ids=lambda value: value)
def test_a_hostile_command_line_is_answered(
    run_program: RunProgram, line: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMP_LINE", raising=False)
    code, out, err = run_program(*line.split())
    assert (code, out, err) == (2, "", f"error: {answer}\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize(("line", "answer"), LATER_ANSWERS, ids=lambda value: value)
def test_what_is_found_late_is_answered(run_program: RunProgram, line: str, answer: str) -> None:
    code, _, err = run_program("logger=none", "phases=scratch", line)
    assert code == 2
    assert err.startswith(f"error: {answer}"), err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_setting_is_not_removed_from_a_resumed_run(
    run_program: RunProgram, scratch_run: Path
) -> None:
    code, _, err = run_program(f"resume={scratch_run}", "~tags")
    assert (code, err) == (2, "error: ~tags: this setting cannot be removed. Omit it.\n")


def test_a_launcher_that_refuses_its_settings_is_named(run_program: RunProgram) -> None:
    arguments = ["-m", "bits=8,12", "launcher=joblib", "hydra.launcher.n_jobs=0"]
    code, _, err = run_program(*arguments)
    assert code == 2
    reason = "Hydra fails with this setting (ValueError n_jobs == 0 in Parallel has no meaning)"
    assert err == f"error: launcher=joblib hydra.launcher.n_jobs=0: {reason}.\n"


def test_the_documented_options_of_a_torchvision_set_are_taken() -> None:
    overrides = ["dataset=torchvision", "dataset.name=EMNIST", "dataset.options={split:letters}"]
    assert compose_config(*overrides).dataset.options == {"split": "letters"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["bits=12", "--cfg", "job", "seed=3"],
        ["-c=job", "bits=12", "seed=3"],
        ["bits=12", "tuning=optuna", "tuning=null", "optimizer=null", "-c", "job", "seed=3"],
    ],
)
def test_options_may_stand_anywhere(run_program: RunProgram, arguments: list[str]) -> None:
    code, out, err = run_program(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("bits: 12\nseed: 3\n")
    assert "\ntuning:" not in out


def test_interpolations_of_the_command_line_reach_the_run(run_program: RunProgram) -> None:
    code, _, err = run_program("run_dir=there", "cache_dir=${run_dir}/cache", "bits=0")
    assert (code, err) == (2, "error: bits=0: must be greater than 0.\n")


OWN = {
    "experiment/named.yaml": "# @package _global_\nbits: 17\n",
    "experiment/debugging.yaml": "# @package _global_\ndefaults: [override /debug: default]\n",
    "experiment/local.yaml": "defaults: [override /dataset: digits]\nbits: 16\n",
    "experiment/flat.yaml": "bits: 16\n",
    "experiment/typo.yaml": "# @package _global_\ndefaults: [override /method: jiont]\n",
    "experiment/group.yaml": "# @package _global_\ndefaults: [override /methd: joint]\n",
    "experiment/twice.yaml": "# @package _global_\ndefaults: [/method: joint]\n",
    "dataset/own.yaml": "defaults: [override /recipe: cifar10]\n_target_: mylab.own\n",
    "experiment/itself.yaml": "# @package _global_\ndefaults: [itself]\n",
}  # fmt: skip


@pytest.fixture
def own_conf(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    for name, text in OWN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("choice", "answer"),
    [
        ("experiment=debugging", "experiment/debugging cannot override debug, which is chosen after experiment. Give it by debug=..."),
        ("experiment=local", "experiment/local: the file must begin with '# @package _global_'."),
        ("experiment=flat", "experiment: the chosen file must begin with '# @package _global_'."),
        ("experiment=typo", "experiment/typo: method=jiont: method has no choice 'jiont'. Did you mean 'joint'?"),
        ("experiment=group", "experiment/group: there is no 'methd' to override. Did you mean 'method'?"),
        ("experiment=twice", "method is chosen twice. In a file of your own write `override /method: ...`."),
        ("dataset=own", "dataset/own: write `override /recipe@_global_.recipe: ...`."),
        ("experiment=itself", "The defaults of a file of your own lead back to this file. Include it once."),
        ("method=mine", "method=mine: method has no choice 'mine'. Valid: joint."),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_of_ones_own_is_explained(
    run_program: RunProgram, own_conf: Path, choice: str, answer: str
) -> None:
    code, _, err = run_program("--config-dir", str(own_conf), choice)
    assert (code, err) == (2, f"error: {answer}\n")


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("experiment/mine", "override /experiment"),
        ("experiment/mine", "/experiment"),
        ("debug/mine", "optional /debug"),
        ("dataset/mine", "override /dataset"),
        ("dataset/mine", "override /dataset@_global_.dataset"),
    ],
)
def test_a_choice_in_the_group_of_the_file_itself_is_refused(
    run_program: RunProgram, file: str, entry: str, tmp_path: Path
) -> None:
    path = tmp_path / "own" / f"{file}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\ndefaults:\n  - {entry}: other\nbits: 16\n")
    code, _, err = run_program("--config-dir", str(tmp_path / "own"), file.replace("/", "="))
    group = file.partition("/")[0]
    advice = "To build on another one write `defaults: [other, _self_]`."
    assert (code, err) == (
        2,
        f"error: {file}: a file of {group}/ cannot choose {group}. {advice}\n",
    )


def test_a_file_builds_on_another_of_its_group(run_program: RunProgram, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [cifar10_few, _self_]\nbits: 17\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    code, out, err = run_program("--config-dir", str(tmp_path / "own"), "experiment=mine", "-c=job")
    assert (code, err) == (0, "")
    assert "bits: 17\n" in out
    assert "epochs: 120\n" in out


@pytest.mark.parametrize("kind", ["job", "all"])
def test_the_phases_are_shown_as_they_will_run(run_program: RunProgram, kind: str) -> None:
    code, out, err = run_program("optimizer=adamw", "--cfg", kind)
    assert (code, err) == (0, "")
    assert out.count("_target_: torch.optim.AdamW\n") == 3
    assert "\noptimizer:" not in out
    assert ("\n    - optimizer=adamw\n" in out) == (kind == "all")  # in hydra.overrides.task


def test_several_folders_of_configurations_may_be_given(
    run_program: RunProgram, own_conf: Path, tmp_path: Path
) -> None:
    (tmp_path / "other" / "method").mkdir(parents=True)
    (tmp_path / "other" / "method" / "mine.yaml").write_text("# Mine.\n_target_: mylab.Mine\n")
    folders = ["--config-dir", str(own_conf), f"--config-dir={tmp_path / 'other'}"]
    again = f"hydra.searchpath=[{own_conf}]"
    code, out, err = run_program(*folders, again, "experiment=named", "method=mine", "-c", "job")
    assert (code, err) == (0, "")
    assert out.startswith("bits: 17\n")
    assert "mylab.Mine" in out
    assert "    mine   Mine." in run_program(*folders, "--help")[1]


def test_the_version_is_printed(run_program: RunProgram) -> None:
    line = f"deephash {deephash.__version__}\n"
    assert run_program("--version") == (0, line, "")
    assert CliRunner().invoke(app, ["--version"]).output == line


def test_help_cuts_no_line() -> None:
    for arguments in (["--help"], ["data", "--help"]):
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
        assert result.exit_code == 0
        assert "..." not in result.output.replace("[ARGS]...", "")
