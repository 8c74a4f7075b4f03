"""Wrong input on the command line: exit code 2 and one sentence with value, place and fix."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hydra.core.global_hydra import GlobalHydra

from deephash.cli.compose import config_groups

LONG = "x" * 300


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run train.py with arguments; return its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *arguments])
        code = 0
        try:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0  # type: ignore[assignment]
        assert "HYDRA_FULL_ERROR" not in os.environ  # later ones would show traces
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["dataset=cifar11"], ["dataset=cifar11", "Did you mean 'cifar10'?"]),
        (["method=jiont"], ["method=jiont", "Did you mean 'joint'?"]),
        (["backbone=lennet"], ["backbone=lennet", "Did you mean 'lenet'?"]),
        (["phases=fulll"], ["phases=fulll", "Did you mean 'full'?"]),
        (["protocol=nonsense"], ["protocol=nonsense", "Valid:", "1k-59k"]),
        (["trainer={gradient_clip_val:1}"], ["trainer.gradient_clip_val", "+trainer."]),
        (["training.hash.optimizer={foo:1}"], ["training.hash.optimizer.foo: there is no such"]),
        (["tags={a: 1}"], ["tags={a: 1}: the value must be a list"]),
        (["training.hash=[1]"], ["training.hash=[1]: the value must be settings"]),
        (["optimizer={lr: 1}"], ["optimizer: choose one of adam, adamw"]),
        (["protocol=10"], ["protocol has no choice '10'. Valid: 10-percent"]),
        (["bit=48"], ["bit:", "Did you mean 'bits'?"]),
        (["method.tua=3"], ["method.tua", "Did you mean 'method.tau'?"]),
        (["+method.tua=3"], ["method.tua", "no such setting", "Did you mean 'tau'?"]),
        (["+nonsense=3"], ["nonsense", "no such setting"]),
        (["training.hash.optimiser.lr=1"], ["training.hash.optimizer.lr"]),
        (["bits=0"], ["bits=0", "greater than 0"]),
        (["bits=-3"], ["bits=-3", "greater than 0"]),
        (["bits=abc"], ["bits=abc: must be an integer."]),
        (["bits=1.5"], ["bits=1.5: must be an integer."]),
        (["bits=null"], ["bits=null: must be an integer."]),
        (["bits=???"], ["bits"]),
        (["seed=-1"], ["seed=-1"]),
        (["training.hash.epochs=0"], ["training.hash.epochs=0", "greater than 0"]),
        (["training.hash.objective=sing"], ["training.hash", "sing", "classify", "hash"]),
        (["training.pretrain.batch_size=1"], ["training.pretrain.batch_size=1"]),
        (["phases.order=[pretrain,hush]"], ["there is no phase 'hush'", "Did you mean 'hash'?"]),
        (["phases.order=[]"], ["phases"]),
        (["phases.order=[hash,pretrain]"], ["comes after one that hashes"]),
        (["phases.order=[hash,hash]"], ["phases", "twice"]),
        (["method.tau=-1"], ["method.tau=-1"]),
        (["method.tau=sharp"], ["method.tau=sharp: must be a number."]),
        (["method.surrogate=smooth"], ["method.surrogate=smooth", "'bilinear' or 'factored'"]),
        (["method._target_=deephash.methods.Nothing"], ["method._target_", "cannot be imported"]),
        (["backbone.widths=[8,x]"], ["backbone.widths=[8,x]: must be an integer."]),
        (["evaluation.radius=49"], ["evaluation.radius=49", "48"]),
        (["protocol.queries_per_class=500"], ["protocol.queries_per_class=500", "class"]),
        (["protocol.validation.fraction=1.0"], ["protocol.validation.fraction=1.0"]),
        (["training.hash.optimizer.lr=fast"], ["training.hash.optimizer.lr=fast"]),
        (["training.hash.optimizer.lr=-1"], ["training.hash.optimizer", "-1"]),
        (["augment.translate=16"], ["augment.translate=16", "16 x 16"]),
        (["augment.cutout=17"], ["augment.cutout=17 is more than the images' 16 x 16 pixels"]),
        (["trainer=gpu"], ["trainer", "gpu", "trainer=cpu"]),
        (["trainer.precision=17"], ["trainer", "17"]),
        (["dataset=cifar10", "data_dir=empty"], ["empty", "data_batch_1", "dataset=digits"]),
        (["data_dir=/dev/null"], ["data_dir=/dev/null is not a folder"]),
        (["dataset=digits", "backbone=lenet", "recipe=nothing"], ["recipe=nothing"]),
        (
            ["dataset=image_folder"],
            ["data/images: there is no such folder", "Set dataset.path to "],
        ),
        (["dataset=image_folder", "dataset.path="], ["dataset.path=: there is no such folder"]),
        (
            ["dataset=image_folder", "dataset.path=x.csv"],
            ["x.csv: there is no such folder or list"],
        ),
        (
            ["dataset=image_folder", "dataset.path=.", "dataset.root=nowhere"],
            ["dataset.root=nowhere: there is no such folder"],
        ),
        (
            ["dataset=image_folder", "dataset.path=.", "dataset.size=big"],
            ["dataset.size=big: must be an integer."],
        ),
        (["dataset=nuswide"], ["data/NUS-WIDE", "Groundtruth/AllLabels", "dataset.lists="]),
        (["dataset=nuswide", "dataset.folder=."], ["holds neither Groundtruth/AllLabels nor"]),
        (
            ["dataset=nuswide", "dataset.folder=.", "dataset.subset=tc22"],
            ["dataset.subset=tc22", "'tc21'"],
        ),
        (["protocol=given"], ["protocol.queries=data/query.txt: there is no such list"]),
        (["protocol=10-percent", "protocol.query_fraction=2"], ["protocol.query_fraction=2"]),
        (["resume=nowhere"], ["resume=nowhere", "no run is there"]),
        (["+trainer.fast_dev_run=true"], ["trainer.fast_dev_run: ", "Use debug=fewsteps."]),
        (["trainer.fast_dev_run=true"], ["trainer.fast_dev_run: ", "Use debug=fewsteps."]),
        (["+trainer.overfit_batches=3"], ["trainer.overfit_batches: ", "Use debug=overfit."]),
        (["trainer.max_epochs=3"], ["trainer.max_epochs: ", "Use training.<phase>.epochs."]),
        (["max_epochs=3"], ["Use training.<phase>.epochs."]),
        (["train.epochs=3"], ["Use training.<phase>.epochs."]),
        (["hash.epochs=3"], ["Did you mean 'training.hash.epochs'?"]),
        (["lr=1"], ["lr: there is no such setting. Use training.<phase>.optimizer.lr."]),
        (["+lr=1"], ["lr: there is no such setting. Use training.<phase>.optimizer.lr."]),
        (["training.hash.lr=1"], ["Use training.hash.optimizer.lr."]),
        (["+training.hash.lr=1"], ["Use training.hash.optimizer.lr."]),
        (["method.learning_rate=1"], ["Use training.<phase>.optimizer.lr."]),
        (["batch_size=1"], ["Use training.<phase>.batch_size."]),
        (["training.hash.batchsize=1"], ["Did you mean 'training.hash.batch_size'?"]),
        (["output_dir=x"], ["Use run_dir."]),
        (["resume_from_checkpoint=x"], ["Use resume=FOLDER"]),
        (["gpus=2"], ["Use trainer=gpu, or trainer=ddp"]),
        (["trainer.gpus=2"], ["Use trainer=gpu, or trainer=ddp"]),
        (["num_workers=2"], ["Use dataset.workers"]),
        (["dataset.num_workers=2"], ["Use dataset.workers"]),
        (["model=resnet"], ["Use backbone=..."]),
        (["hash_length=12"], ["Use bits."]),
        (["project=x"], ["Use logger.wandb.project."]),
        (["run_dir=/dev/null/run"], ["run_dir=/dev/null/run", "Name another run_dir"]),
        ([f"run_dir={LONG}"], [f"run_dir={LONG}: File name too long. Name another run_dir."]),
        ([f"resume={LONG}"], [f"resume={LONG}: no run is there"]),
        ([f"--config-dir={LONG}"], [f"{LONG}: there is no such folder of configurations"]),
        ([f"data_dir={LONG}", f"cache_dir={LONG}", "bits=0"], ["bits=0: must be greater than 0."]),
        (
            ["logger=wandb", "logger.wandb.mode=loud"],
            ["logger.wandb.mode=loud", "'online' or 'offline'"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_explained_in_one_sentence(
    train, arguments: list[str], expected: list[str]
) -> None:
    code, _, err = train("logger=none", *arguments)
    assert code == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for text in expected:
        assert text in err
    assert not Path("runs").exists()


def test_help_describes_every_choice(train) -> None:
    code, out, _ = train("--help")
    assert code == 0
    for group, choices in config_groups().items():
        assert f"\n{group}:\n" in out
        for name, description in choices.items():
            assert f"    {name} " in out
            assert description in out
    assert "\nbits: 48\n" in out


@pytest.fixture
def own_conf(tmp_path: Path) -> Path:
    """A folder of configurations of a user's own, with a data set."""
    folder = tmp_path / "own"
    (folder / "dataset").mkdir(parents=True)
    text = "# Mine.\n_target_: mylab.data.mine\nshade: 3\n"
    (folder / "dataset" / "mine.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("by", ["--config-dir={}", "hydra.searchpath=['file://{}']"])
@pytest.mark.parametrize("folder", ["plain", "it's (of) ü=ber #1"])
def test_own_configurations_reach_help_and_errors(
    train, own_conf: Path, by: str, folder: str
) -> None:
    own_conf = own_conf.rename(own_conf.with_name(folder))
    if "'" in by:
        own_conf = own_conf.rename(own_conf.with_name(folder.replace("'", "")))
    option = by.format(own_conf)
    assert "    mine          Mine." in train("--help", option)[1]
    code, _, err = train(option, "dataset=mine", "dataset.shadow=4")
    assert (code, err) == (
        2, "error: dataset.shadow: there is no such setting. Did you mean 'dataset.shade'?\n"
    )  # fmt: skip
    code, _, err = train(option, "dataset=mines")
    assert (code, err) == (
        2, "error: dataset=mines: dataset has no choice 'mines'. Did you mean 'mine'?\n"
    )  # fmt: skip
    code, _, err = train(option, "dataset=mine")
    assert code == 2
    assert "dataset._target_=mylab.data.mine cannot be imported" in err
    assert "mylab" in err.replace("mylab.data.mine", "")


def test_a_configuration_that_two_packages_have_is_refused(train, own_conf: Path) -> None:
    (own_conf / "dataset" / "digits.yaml").write_text("_target_: mylab.data.mine\n")
    code, _, err = train(f"hydra.searchpath=[file://{own_conf}]")
    assert code == 2
    assert err.startswith(f"error: dataset/digits.yaml is in file://{own_conf} and in ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: [1", "cannot be read as YAML"),
        ("defaults: [{/backbone: lenett}]\n", "backbone"),
        ("defaults: [{override /backbones: lenet}]\n", "backbone"),
        ("_target_: [1]\n", "dataset"),
    ],
)
def test_own_configuration_that_does_not_compose(
    train, own_conf: Path, content: str, reason: str
) -> None:
    (own_conf / "dataset" / "wrong.yaml").write_text(content)
    code, _, err = train(f"--config-dir={own_conf}", "dataset=wrong", "logger=none")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert reason in err


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("hydra.searchpath=[pkg://nolab.conf]", "there is no package 'nolab.conf'"),
        ("hydra.searchpath=[file:///nowhere]", "file:///nowhere: there is no such folder"),
        ("--config-dir=nowhere", "nowhere: there is no such folder"),
        ("+hydra.searchpath=[file:///nowhere]", "without '+'"),
        ("hydra.searchpath=[pkg://brokenlab.conf]", "importing 'brokenlab.conf' fails: KeyError"),
    ],
)
def test_own_configurations_that_are_not_there(
    train, argument: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brokenlab").mkdir()
    (tmp_path / "brokenlab" / "__init__.py").write_text("{}['missing']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, _, err = train(argument)
    assert code == 2
    assert reason in err
    assert err.count("\n") == 1


HEAVY = ("torch", "numpy", "pytorch_lightning", "torchmetrics", "timm", "wandb", "matplotlib")


def test_nothing_heavy_is_imported_before_a_run_begins(tmp_path: Path) -> None:
    """Help, a composed configuration, a completion and typos, all in one process."""
    (tmp_path / "train.py").touch()
    script = f"""
import contextlib, io, os, runpy, sys
os.environ |= {{"COMP_LINE": "train.py dataset=m", "COMP_POINT": "18", "COMP_CWORD": "1"}}
arguments = [["--help"], ["--cfg", "job"], ["-sc", "query=bash"], ["bitz=48"], ["dataset=cifra10"],
             ["bits=0"], ["training.hash.epochs=many"], ["resume=nowhere"], ["phase.hash.epochs=1"],
             ["--version"], ["bits==3"], ["--bits", "3"], ["protocol=given"], ["dataset=nuswide"],
             ["dataset=image_folder"], ["data_dir=train.py"], ["--cfg", "all"]]
outputs = []
for some in arguments:
    sys.argv = [{str(ROOT / "train.py")!r}, *some]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_path(sys.argv[0], run_name="__main__")
    outputs.append(out.getvalue())
assert "dataset=mnist" in outputs[2], outputs[2]
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert done.stderr.count("error: ") == 12


def test_import_deephash_imports_nothing_heavy() -> None:
    script = f"import sys, deephash; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
