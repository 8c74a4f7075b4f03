"""Kill trainings at random moments, resume them, and compare them with an uninterrupted one.

    python tests/random_kills.py --kills 50 --seed 0 [--processes 2] [--work DIR]   half an hour

Each trial is killed a few times by SIGKILL, SIGTERM or SIGINT, the stages of a run in turn, each at
a random moment, and resumed by the command that it printed, until it is finished. Prints a line for
each kill, and a Markdown table. Exits with 1 if a signal was not answered as promised, or a run
differs from the uninterrupted one.
"""

import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sample_images import sample_image

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 120  # seconds for a process to reach a stage, and to end after a signal
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Each stage takes long enough for a kill to fall anywhere in it.
SETTINGS = """
    dataset=image_folder dataset.size=32 dataset.workers=2 bits=16 logger=csv
    backbone=resnet_small backbone.widths=[8,16,24] evaluation.ks=[10] evaluation.batch_size=4
    training.pretrain.epochs=6 training.init.epochs=20 training.hash.epochs=6
    training.pretrain.batch_size=32 training.init.batch_size=32 training.hash.batch_size=32
"""


class Process:
    """One start of the training in a folder, followed by its files and what it writes to a log."""

    def __init__(self, command: list[str], folder: Path, log: Path) -> None:
        self.run_dir, self.log, self.start = folder / "run", log, time.time()
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        with log.open("w") as output, log.with_suffix(".errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command[1:]],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(folder / "tmp")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def prints(self, beginning: str) -> bool:
        """Whether a line of its output begins so."""
        return f"\n{beginning}" in f"\n{self.log.read_text()}"

    def has(self, name: str, newer_than: float = 0.0) -> bool:
        """Whether this file is in the run's folder, and not older."""
        path = self.run_dir / name
        return path.is_file() and path.stat().st_mtime > newer_than

    def wait_for(self, stage: str) -> bool:
        """Wait until a stage begins; whether it does before the process ends."""
        while self.process.poll() is None and time.time() < self.start + TIMEOUT:
            if STAGES[stage](self):
                return True
            time.sleep(0.002)
        return False

    def end(self) -> tuple[int, str]:
        """Exit code and error output; of a process that does not end by itself, -9."""
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(), self.log.with_suffix(".errors").read_text().strip()


# How to see that a stage has begun, in the order of a run.
STAGES: dict[str, Callable[[Process], bool]] = {
    "start": lambda process: True,
    "decode": lambda process: process.prints("decoding "),
    "pretrain": lambda process: process.prints("pretrain: "),
    "init": lambda process: process.prints("init: "),
    "hash": lambda process: process.prints("hash: "),
    "evaluate": lambda process: process.has("checkpoints/hash.ckpt") and process.prints("backbone"),
    "report": lambda process: process.has("codes/query.npz", newer_than=process.start),
    "exit": lambda process: process.has("metrics.json"),
}


class Kill(NamedTuple):
    """A signal in a stage of a run."""

    stage: str
    signal: signal.Signals


class Trials:
    """Trials in subfolders of `work`, and the uninterrupted run that each must equal."""

    def __init__(self, work: Path, settings: list[str], generator: random.Random) -> None:
        self.work, self.settings, self.generator = work, settings, generator
        self.counts: Counter[Kill] = Counter()
        self.problems: list[str] = []
        self.whole = work / "whole"
        process = Process(self._command(self.whole), self.whole, work / "whole.log")
        starts = [time.time() for stage in STAGES if process.wait_for(stage)]
        code, errors = process.end()
        if code or errors:
            sys.exit(f"the uninterrupted run ended with {code}: {errors}")
        pairs = zip(starts, [*starts[1:], time.time()], strict=True)
        self.seconds = dict(zip(STAGES, (end - start for start, end in pairs), strict=True))

    def run(self, number: int, kills: list[Kill]) -> list[Kill]:
        """Train with these kills, and compare; returns those whose stage did not come."""
        folder = self.work / f"trial{number}"
        command = self._command(folder)
        todo = sorted(kills, key=lambda kill: list(STAGES).index(kill.stage))
        before = len(self.problems)
        for sitting in range(len(kills) + 1):
            process = Process(command, folder, self.work / f"trial{number}-{sitting}.log")
            if todo and process.wait_for(todo[0].stage):
                time.sleep(self.generator.uniform(0, self.seconds[todo[0].stage]))
            elif todo and process.process.poll() is None:
                os.killpg(process.process.pid, signal.SIGKILL)
                process.end()
                self._report(number, f"{todo.pop(0).stage} did not begin in {TIMEOUT} seconds")
                break
            if not todo or process.process.poll() is not None:
                code, errors = process.end()
                if code or errors:
                    self._report(number, f"{shlex.join(command)} ended with {code}: {errors}")
                break
            stage = [stage for stage, has_begun in STAGES.items() if has_begun(process)][-1]
            kill = Kill(stage, todo.pop(0).signal)
            os.killpg(process.process.pid, kill.signal)
            code, errors = process.end()
            self.counts[kill] += 1
            place = f"{self.counts.total():3} trial {number}, {kill.signal.name} in {kill.stage}"
            print(f"{place}: {code}", *errors.splitlines()[-1:], flush=True)
            if not is_promised(kill, code, errors, has_config=process.has("config.yaml")):
                self._report(number, f"{place}: {code}, {errors}")
            if process.has("config.yaml"):
                hint = re.search("Resume with: (.*)", errors)
                resume = f"python train.py resume={process.run_dir}"
                command = shlex.split(hint[1] if hint else resume)
        for difference in find_differences(self.whole, folder):
            self._report(number, difference)
        if len(self.problems) == before:
            shutil.rmtree(folder)
        return todo

    def _command(self, folder: Path) -> list[str]:
        """The command that starts a run in its folders."""
        places = {"run_dir": "run", "cache_dir": "cache", "dataset.decoded_dir": "decoded"}
        paths = [f"{setting}={folder / name}" for setting, name in places.items()]
        return ["python", "train.py", *self.settings, *paths]

    def _report(self, number: int, problem: str) -> None:
        self.problems.append(f"trial {number}: {problem}")
        print(f"    {problem}", flush=True)

    def print_table(self) -> None:
        """Print how long each stage takes, and how often each signal fell into it."""
        print("\n| stage | seconds | SIGKILL | SIGTERM | SIGINT |\n|---|---:|---:|---:|---:|")
        for stage, seconds in self.seconds.items():
            counts = " | ".join(str(self.counts[Kill(stage, number)]) for number in SIGNALS)
            print(f"| {stage} | {seconds:.1f} | {counts} |")


def is_promised(kill: Kill, code: int, errors: str, *, has_config: bool) -> bool:
    """Whether a process may end so: with one sentence, or silently where no work is lost."""
    if kill.signal == signal.SIGKILL:
        return code == -signal.SIGKILL and not errors
    if kill.stage in ("start", "exit") and not errors:
        return code in (130, -kill.signal) or (kill.stage == "exit" and code == 0)
    sentence = r"Stopped\." + r" Resume with: .* resume=\S+" * has_config
    return code == 130 and re.fullmatch(sentence, errors) is not None


def find_differences(whole: Path, folder: Path) -> list[str]:
    """How a trial differs from the uninterrupted run: in names of files, codes, metrics, curves."""
    expected, found = (
        {str(path.relative_to(base)): path for path in base.rglob("*") if path.is_file()}
        for base in (whole, folder)
    )
    shared = expected.keys() & found.keys()
    return [
        *(f"{name} is left over" for name in found.keys() - shared),
        *(f"{name} is missing" for name in expected.keys() - shared),
        *(f"{name} differs" for name in shared if read(expected[name]) != read(found[name])),
    ]


def read(path: Path) -> object:
    """What must be equal in a file: codes, split, metrics and curves, but no times."""
    if path.suffix == ".npz":
        return path.read_bytes()
    if path.name == "metrics.json":
        results = json.loads(path.read_text())
        return results["test"], results["validation"]
    if path.name == "curves.csv":
        columns = zip(*(line.split(",") for line in path.read_text().splitlines()), strict=True)
        return [column for column in columns if not column[0].endswith("images_per_second")]
    return None


def write_photos(folder: Path, count: int = 320) -> Path:
    """Write images of four classes, large enough to take a while to decode."""
    for i in range(count):
        path = folder / "abcd"[i % 4] / f"{i}.{'jpg' if i % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        sample_image(i, 640, 480).save(path)
    return folder


def main() -> int:
    """Run trials until there were as many kills as asked for."""
    parser = argparse.ArgumentParser(description="Kill trainings at random moments; resume them.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="of a run; all get the signal")
    parser.add_argument("--work", type=Path, help="a new folder, which is kept")
    arguments = parser.parse_args()
    # What a shell starts in the background ignores SIGINT, and so would the runs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work = (arguments.work or Path(tempfile.mkdtemp(prefix="random_kills."))).resolve()
    several = ["trainer=ddp_cpu", f"trainer.devices={arguments.processes}"]
    trainer = several if arguments.processes > 1 else ["trainer=cpu"]
    photos = f"dataset.path={write_photos(work / 'photos')}"
    trials = Trials(work, [*SETTINGS.split(), photos, *trainer], random.Random(arguments.seed))
    # 8 stages and 3 signals in turn: each pair comes once in 24 kills.
    stages = list(STAGES)
    kills = deque(Kill(stages[i % len(stages)], SIGNALS[i % 3]) for i in range(arguments.kills))
    number = 0
    while kills:
        number += 1
        count = min(trials.generator.randint(1, 5), len(kills))
        kills.extend(trials.run(number, [kills.popleft() for _ in range(count)]))
    trials.print_table()
    print(f"\n{arguments.kills} kills, {number} trials, problems:", *trials.problems or ["none"])
    if not trials.problems and not arguments.work:
        shutil.rmtree(work)
    return int(bool(trials.problems))


if __name__ == "__main__":
    sys.exit(main())
