"""The digest of the code that determines a pre-training, and what it is for."""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from deephash.experiment.run import run
from deephash.training.optimization import PhaseOptimization
from deephash.training.source_digest import source_digest

PACKAGE = "digested_package"
NET = f"""
import torch
from torch import nn
from . import layers
from {PACKAGE}.blocks.activation import activate


class Net(nn.Module):
    def __init__(self, in_chans, image_size):
        super().__init__()
        height, width = image_size
        self.linear = layers.make_linear(in_chans * height * width)
        self.num_features = 12

    def forward(self, images):
        return activate(self.linear(images.flatten(1)))
"""
FEW_STEPS = ["dataset=digits", "+trainer.limit_train_batches=2"]
FILES = {
    "__init__.py": "",
    "net.py": NET,
    "layers.py": "from torch import nn\n\n\ndef make_linear(n):\n    return nn.Linear(n, 12)\n",
    "blocks/__init__.py": "",
    "blocks/activation.py": "from torch.nn import functional as F\n\nactivate = F.gelu\n",
    "unrelated.py": "VALUE = 1\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a user's own, whose net imports two of its modules."""
    folder = tmp_path / "code" / PACKAGE
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    forget_package()


def forget_package() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()


def load_net() -> Any:
    """The class as a new process would see it."""
    forget_package()
    return importlib.import_module(f"{PACKAGE}.net").Net


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_same_sources_have_the_same_digest(package: Path) -> None:
    digest = source_digest(load_net())
    assert len(digest) == 64
    assert source_digest(load_net()) == digest


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("net.py", "flatten(1)", "flatten(1) / 2"),
        ("layers.py", "nn.Linear(n, 12)", "nn.Linear(n, 12, bias=False)"),
        ("blocks/activation.py", "F.gelu", "F.relu"),
        ("blocks/__init__.py", "", "import torch\n"),
    ],
)
def test_a_change_of_the_net_or_of_what_it_imports_changes_the_digest(
    name: str, old: str, new: str, package: Path
) -> None:
    digest = source_digest(load_net())
    replace(package / name, old, new)
    assert source_digest(load_net()) != digest
    replace(package / name, new, old)
    assert source_digest(load_net()) == digest


def test_a_change_elsewhere_leaves_the_digest(package: Path) -> None:
    digest = source_digest(load_net())
    replace(package / "unrelated.py", "1", "2")
    (package / "more.py").write_text("import torch\n")
    assert source_digest(load_net()) == digest


def test_the_name_of_a_file_and_the_order_of_the_targets_leave_the_digest(package: Path) -> None:
    digest = source_digest(load_net())
    (package / "net.py").rename(package / "renamed.py")
    forget_package()
    renamed = importlib.import_module(f"{PACKAGE}.renamed").Net
    assert source_digest(renamed) == digest
    assert source_digest(renamed, PhaseOptimization) == source_digest(PhaseOptimization, renamed)
    assert source_digest(renamed, PhaseOptimization) != digest


def test_what_is_imported_inside_a_function_counts(package: Path) -> None:
    text = f"def make():\n    from {PACKAGE} import unrelated\n    return unrelated.VALUE\n"
    replace(package / "layers.py", "from torch import nn\n", f"from torch import nn\n\n\n{text}")
    digest = source_digest(load_net())
    replace(package / "unrelated.py", "1", "2")
    assert source_digest(load_net()) != digest


def test_modules_of_this_package_count_and_libraries_do_not(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_digest(torch.optim.SGD) == source_digest()
    imports = "from torch import nn\nfrom deephash.core.seeds import derived_seed\n"
    replace(package / "layers.py", "from torch import nn\n", imports)
    digest = source_digest(load_net())
    read_bytes = Path.read_bytes

    def read_changed(path: Path) -> bytes:
        return read_bytes(path) + (b"\n# changed\n" if path.name == "seeds.py" else b"")

    monkeypatch.setattr(Path, "read_bytes", read_changed)
    assert source_digest(load_net()) != digest


def test_a_pretraining_by_another_source_is_not_taken(
    package: Path,
    compose_run: Callable[..., DictConfig],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its plots would take most of the time.
    monkeypatch.setattr("deephash.experiment.pipeline.write_report", lambda *args, **kwargs: None)

    def trains(folder: str) -> bool:
        """Whether a run trains its pre-training itself."""
        cfg = compose_run("phases.order=[pretrain]", *FEW_STEPS, folder=folder)
        cfg.backbone = {"_target_": f"{PACKAGE}.net.Net"}
        forget_package()
        caplog.clear()
        with caplog.at_level(logging.INFO, "deephash"):
            run(cfg)
        is_found = any(
            line.startswith("pretrain: reusing the finished pre-training")
            for line in caplog.messages
        )
        is_trained = any(line.startswith("pretrain: 1 epoch") for line in caplog.messages)
        assert is_found != is_trained
        return is_trained

    assert trains("first")
    replace(package / "blocks" / "activation.py", "F.gelu", "F.relu")
    assert trains("relu")
    replace(package / "blocks" / "activation.py", "F.relu", "F.gelu")
    assert not trains("gelu")
