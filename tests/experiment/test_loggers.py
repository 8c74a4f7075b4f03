from pathlib import Path

import pytest

from deephash.experiment.loggers import chosen_mode


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No W&B account: no key in the environment, no netrc."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_without_an_account_wandb_is_offline(nobody: Path) -> None:
    assert chosen_mode(None) == "offline"
    nobody.write_text("machine another.example login user password x\n")
    assert chosen_mode(None) == "offline"
    nobody.write_text("this is no netrc")
    assert chosen_mode(None) == "offline"


def test_with_a_key_wandb_is_online(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody.write_text("machine api.wandb.ai login user password x\n")
    assert chosen_mode(None) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://tracking.example:8080")
    assert chosen_mode(None) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert chosen_mode(None) == "online"


def test_a_mode_that_is_asked_for_counts_first(
    nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert chosen_mode(None) == "disabled"
    assert chosen_mode("offline") == "offline"
