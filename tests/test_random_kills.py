"""`random_kills.py` itself: what it must not take for a success."""

import random
import signal
from collections import Counter
from pathlib import Path

import pytest
import random_kills
from random_kills import Kill, Trials


class HangingTrials(Trials):
    """Trials of a program that does nothing, without an uninterrupted run."""

    def __init__(self, work: Path) -> None:
        self.work, self.generator, self.whole = work, random.Random(0), work / "whole"
        self.counts, self.problems, self.seconds = Counter(), [], {}

    def _command(self, folder: Path) -> list[str]:
        return ["python", "-c", "import time; time.sleep(600)"]


def test_a_process_that_hangs_before_its_stage_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_kills, "TIMEOUT", 0.5)
    trials = HangingTrials(tmp_path)
    kills = [Kill("decode", signal.SIGKILL), Kill("hash", signal.SIGINT)]
    assert trials.run(1, kills) == [Kill("hash", signal.SIGINT)]
    assert trials.problems == ["trial 1: decode did not begin in 0.5 seconds"]
    assert not trials.counts
