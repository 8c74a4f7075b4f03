import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from deephash.core import ranks
from deephash.core.errors import UserError, did_you_mean
from deephash.core.io import atomic_write, write_json
from deephash.core.seeds import derived_seed


class BrokenDataset(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        raise UserError(f"image {index} cannot be read: it is empty.\nRemove it.")


def test_user_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="^bits=0: give at least 1$"):
        raise UserError("bits=0: give at least 1")


def test_user_error_from_a_data_loader_worker_keeps_its_message_only() -> None:
    with pytest.raises(UserError) as error:
        next(iter(DataLoader(BrokenDataset(), num_workers=1)))
    assert str(error.value) == "image 0 cannot be read: it is empty.\nRemove it."


def test_did_you_mean_suggests_or_lists() -> None:
    assert did_you_mean("phases", ["phase", "bits"]) == "Did you mean 'phase'?"
    assert did_you_mean("xyz", ["phase", "bits"]) == "Valid: bits, phase."


def test_atomic_write_leaves_the_old_file_on_error(tmp_path: Path) -> None:
    path = tmp_path / "new" / "values.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with atomic_write(path) as temporary:
            assert temporary.suffix == ".json"
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_derived_seeds_never_change() -> None:
    assert derived_seed(0, "split") == 831871185
    assert derived_seed(3, "hash", 7) == 794664160


@pytest.mark.parametrize(
    ("variables", "rank", "world_size"),
    [
        ({}, 0, 1),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, 3, 4),
        ({"LOCAL_RANK": "1"}, 0, 1),
        ({"RANK": "abc", "WORLD_SIZE": "all"}, 0, 1),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, 2, 3),
    ],
    ids=["single", "torchrun", "stray", "of something else", "slurm"],
)
def test_rank_and_world_size_of_launchers(
    variables: dict[str, str], rank: int, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*ranks.RANK_VARIABLES, *ranks.WORLD_SIZE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.launched_world_size()) == (rank, world_size)
    assert ranks.is_rank_zero() == (rank == 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "RANK=1 says that this is one of several processes, but WORLD_SIZE does"),
        ({"SLURM_PROCID": "1"}, "or remove it: unset SLURM_PROCID"),
        ({"LOCAL_RANK": "2", "WORLD_SIZE": "2"}, "LOCAL_RANK=2 says"),
        ({"RANK": "x"}, "RANK=x is no rank of a process. Remove it: unset RANK"),
    ],
)
def test_a_rank_that_no_launcher_sets_is_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(message)):
        ranks.check_ranks()
    assert ranks.is_rank_zero()  # which reports it


@pytest.mark.parametrize("stray", [{"SLURM_PROCID": "0"}, {"RANK": "0"}])
def test_a_launched_process_goes_by_the_rank_of_its_launcher(
    stray: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may be inherited, as in an interactive shell of Slurm."""
    for name, value in {"LOCAL_RANK": "1", **stray}.items():
        monkeypatch.setenv(name, value)
    assert not ranks.is_launched_by_rank_zero()
    monkeypatch.setattr(ranks, "IS_LAUNCHED", True)
    assert (ranks.rank(), ranks.is_launched_by_rank_zero()) == (1, True)


def test_rank_one_reports_errors_after_its_parent_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not ranks.should_report_error()
    monkeypatch.setattr(ranks, "PARENT_PID", os.getppid() + 1)
    assert ranks.should_report_error()


def test_core_is_imported_without_heavy_packages() -> None:
    program = (
        "import sys, deephash.core.errors, deephash.core.io, deephash.core.seeds\n"
        "import deephash.core.ranks, deephash.core.instantiate\n"
        "print(*{'torch', 'numpy', 'hydra', 'omegaconf', 'pydantic'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == []
