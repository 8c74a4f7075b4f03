"""A run folder is data: what its settings may name, and that nothing else is imported or called."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import RunProgram, compose_config, options, resume_run
from omegaconf import OmegaConf

from deephash.core.errors import UserError
from deephash.experiment.trust import check_targets

pytestmark = pytest.mark.usefixtures("light_runs")

PATH = Path("run/config.yaml")
MYLAB = """
import os
from pathlib import Path
from torch.optim import SGD
from deephash.methods.joint import Joint
(Path(__file__).parent / "imported").touch()
class Net:
    ...
class Mine(Joint):
    ...
"""


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's package that leaves a file when it is imported."""
    folder = tmp_path / "mylab"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "nets.py").write_text(MYLAB)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]
    return folder


def change_config(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "config.yaml"
    config: Any = OmegaConf.to_container(OmegaConf.load(path))
    change(config)
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(config, flags={"allow_objects": True})))


def put(config: dict, place: str, value: object) -> None:
    *parents, name = place.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    config[name] = value


@pytest.mark.parametrize(
    ("place", "node"),
    [
        ("dataset", {"_target_": "shutil.copyfile", "src": "SECRET", "dst": "MARK"}),
        ("dataset", {"_target_": "torch.load", "f": "SECRET", "weights_only": False}),
        ("dataset", {"_target_": "numpy.load", "file": "SECRET", "allow_pickle": True}),
        ("dataset", {"_target_": "deephash.data.datasets.mnist.np.load", "file": "SECRET"}),
        ("dataset", {"_target_": "deephash.data.datasets.download.extract"}),
        ("dataset", {"_target_": "deephash.methods.joint.Joint"}),
        ("dataset", {"_target_": "mylab.nets.Net"}),
        ("dataset.size", {"_target_": "os.getcwd"}),
        ("dataset.size", [{"_target_": "deephash.backbones.LeNet"}]),
        ("dataset._args_", ["SECRET"]),
        ("dataset._partial_", True),
        ("protocol._target_", "deephash.data.datasets.digits.digits"),
        ("protocol.validation._target_", "os.getcwd"),
        ("backbone._target_", "torch.hub.load"),
        ("backbone._target_", "deephash.backbones.pretrained.torch.load"),
        ("method._target_", "deephash.methods.joint.nn.Linear"),
        ("trainer._target_", "os.getcwd"),
        ("trainer.profiler", {"_target_": "pytorch_lightning.profilers.SimpleProfiler"}),
        ("logger.extra", {"_target_": "pytorch_lightning.loggers.CSVLogger"}),
        ("logger.extra", {"_target_": "deephash.backbones.LeNet"}),
        ("training.hash.optimizer._target_", "torch.optim.lr_scheduler.LambdaLR"),
        ("training.hash.optimizer._target_", "torch.optim.adam.torch.load"),
        ("training.hash.scheduler._target_", "torch.optim.SGD"),
        ("training.hash.param_groups", {"backbone": {"lr": {"_target_": "os.getcwd"}}}),
        ("training.extra.optimizer", {"_target_": "subprocess.Popen", "args": "touch MARK"}),
        ("anything.at.all", {"_target_": "os.getcwd"}),
    ],
    ids=str,
)
def test_a_run_folder_may_not_name_what_its_place_does_not_take(
    place: str, node: object, scratch_run: Path, mylab: Path, tmp_path: Path
) -> None:
    secret, mark = tmp_path / "secret", tmp_path / "mark"
    secret.write_text("secret")
    text = repr(node).replace("SECRET", str(secret)).replace("MARK", str(mark))
    node = eval(text)  # a literal of the table above
    change_config(scratch_run, lambda config: put(config, place, node))
    (scratch_run / "metrics.json").unlink()
    before = set(sys.modules)
    with pytest.raises(UserError, match=rf"{scratch_run}/config.yaml: {place.partition('.')[0]}"):
        resume_run(scratch_run)
    assert not mark.exists()
    assert not (mylab / "imported").exists()
    assert "mylab" not in set(sys.modules) - before


@pytest.mark.parametrize(
    "value", ["${oc.env:HOME}", "${now:%Y}", "a ${data_dir} b", "${oc.decode:'1'}", "$${x}"]
)
@pytest.mark.parametrize("place", ["data_dir", "dataset.size", "training.hash.epochs", "tags"])
def test_interpolations_of_a_run_folder_are_not_computed(
    value: str, place: str, scratch_run: Path
) -> None:
    change_config(scratch_run, lambda c: put(c, place, [value] if place == "tags" else value))
    with pytest.raises(UserError, match=rf"config.yaml: {place}.*is not taken from a run's fold"):
        resume_run(scratch_run)


GROUPS = (
    "dataset",
    "protocol",
    "backbone",
    "method",
    "trainer",
    "logger",
    "optimizer",
    "scheduler",
)


@pytest.mark.parametrize(("group", "name"), [(g, name) for g in GROUPS for name in options(g)])
def test_what_conf_names_may_be_named(group: str, name: str) -> None:
    config: Any = OmegaConf.to_container(compose_config(f"{group}={name}"))
    check_targets({key: value for key, value in config.items() if key != "hydra"}, PATH, ())


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "NAdam"])
def test_any_optimizer_of_torch_may_be_named(name: str) -> None:
    for module in ("torch.optim", "timm.optim"):
        node = {"_target_": f"{module}.{name if module[1] == 'o' else 'Lion'}", "lr": 0.1}
        check_targets({"training": {"hash": {"optimizer": node}}}, PATH, ())


def test_a_package_of_the_user_s_own_is_named_in_the_call(scratch_run: Path, mylab: Path) -> None:
    node = {"_target_": "mylab.nets.Mine"}
    change_config(scratch_run, lambda config: config["method"].update(node))
    change_config(scratch_run, lambda config: put(config, "allow", ["mylab"]))  # of no use there
    (scratch_run / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"If you trust .* add: allow=\[mylab\]"):
        resume_run(scratch_run)
    assert not (mylab / "imported").exists()
    for allow in ("allow=[mylab]", "allow=mylab"):
        # The settings are taken; the checkpoint is that of another method.
        with pytest.raises(UserError, match=r"hash.ckpt belongs to another model: its method is"):
            resume_run(scratch_run, allow)
    assert (mylab / "imported").exists()


@pytest.mark.parametrize("target", ["os.system", "Path.unlink", "SGD", "os.path.join", "sys.exit"])
def test_an_allowed_package_lends_no_trust_to_what_it_imports(target: str, mylab: Path) -> None:
    node = {"_target_": f"mylab.nets.{target}"}
    with pytest.raises(UserError, match=r"is defined in|cannot be imported"):
        check_targets({"method": node}, PATH, ["mylab"])


@pytest.mark.parametrize("allow", ["[1]", "[a.b]", "[a b]", "5"])
def test_allow_takes_names_of_packages(allow: str, scratch_run: Path) -> None:
    with pytest.raises(UserError, match=r"allow=.*: must be a list of packages"):
        resume_run(scratch_run, f"allow={allow}")


def test_a_command_line_stays_free(scratch_run: Path, run_program: RunProgram) -> None:
    (scratch_run / "metrics.json").unlink()
    change_config(scratch_run, lambda c: put(c, "trainer._target_", "os.getcwd"))
    code, _, errors = run_program(f"resume={scratch_run}", "trainer.devices=1")
    assert (code, errors) == (0, "")  # it is the trainer of the command line
