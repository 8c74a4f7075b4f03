"""CPU seconds that the command line takes to answer, and what the start of a run imports.

    python -m benchmarks.speed.startup
    python -m benchmarks.speed.startup --checkout ../before --label "0.2 (23da122)"

Each command runs in a process of its own in the checkout. User and system time of that process and
its children are added, which depends little on the load of the machine. Cells of other labels are
kept, so that checkouts stand side by side. Writes results/startup.*.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import (
    REPEATS,
    RESULTS,
    ROOT,
    describe_machine,
    machine_info,
    write_results,
)

COMPLETED_LINE = "python train.py dataset=c"
REFERENCE = "import hydra"
TYPO = "python train.py bitz=48 (a typo)"
COMPLETION = {  # what the shell's completion function exports, see Hydra's bash_completion
    "COMP_LINE": COMPLETED_LINE,
    "COMP_POINT": str(len(COMPLETED_LINE)),
    "COMP_CWORD": "2",
}
APPS = ("deephash/cli/entry.py", "deephash/cli/__init__.py")  # now, and in version 0.2
PIPELINES = ("deephash/experiment/pipeline.py", "deephash/run.py")
LIBRARIES = ("timm", "scipy", "matplotlib", "wandb")  # that a run imports only if it uses them


def main() -> None:
    """Measure one checkout, and write the table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkout", type=Path, default=ROOT, help="folder of the checkout")
    parser.add_argument("--label", default="this version", help="column of the table")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    path = RESULTS / "startup.json"
    results = json.loads(path.read_text()) if path.is_file() else {"cells": {}}
    results["cells"][options.label] = measure(checkout)
    write_results("startup", results, markdown(results))


def commands(checkout: Path) -> dict[str, list[str]]:
    """The commands that are measured, by name."""
    train = [sys.executable, "train.py"]
    code = [sys.executable, "-c"]
    return {
        REFERENCE: [*code, "import hydra"],
        "import deephash": [*code, "import deephash"],
        "deephash --help": [
            *code,
            f"from {first_module(APPS, checkout)} import app; app()",
            "--help",
        ],
        "python train.py --help": [*train, "--help"],
        "python train.py --cfg job": [*train, "--cfg", "job"],
        f"TAB after {COMPLETED_LINE}": [*train, "-sc", "query=bash"],
        TYPO: [*train, "bitz=48"],
    }


def measure(checkout: Path) -> dict[str, Any]:
    """CPU seconds of each command, what the start of a run imports, and the machine."""
    seconds: dict[str, list[float]] = {}
    for repeat in range(REPEATS + 1):
        for name, command in commands(checkout).items():
            elapsed = cpu_seconds(command, checkout, succeeds=name != TYPO)
            if repeat:  # the first one fills the caches of files and bytecode
                seconds.setdefault(name, []).append(elapsed)
    info = machine_info("hydra-core")
    del info["versions"]["deephash"]  # of the installed package, not of the checkout
    return {
        "cpu_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "imported_by_a_run": imported_by_a_run(checkout),
        "machine": info,
    }


def first_module(candidates: tuple[str, ...], checkout: Path) -> str:
    """The name of the first module of the checkout among several paths."""
    path = next(path for path in candidates if (checkout / path).is_file())
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def cpu_seconds(command: list[str], checkout: Path, *, succeeds: bool) -> float:
    """User and system seconds of a command.

    Args:
        command: program and arguments.
        checkout: folder that it runs in.
        succeeds: whether exit status 0 is expected; otherwise any other.

    Raises:
        RuntimeError: the command ended with another exit status.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = run_in(checkout, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if (process.returncode == 0) != succeeds:
        raise RuntimeError(f"{command} ended with {process.returncode}: {process.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def run_in(checkout: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command with the checkout's own package first on the import path."""
    environment = {**os.environ, **COMPLETION, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def imported_by_a_run(checkout: Path) -> list[str]:
    """Which of `LIBRARIES` are imported with the module that runs a training."""
    code = (
        f"import json, sys, {first_module(PIPELINES, checkout)}\n"
        f"print(json.dumps([name for name in {LIBRARIES} if name in sys.modules]))"
    )
    process = run_in(checkout, [sys.executable, "-c", code])
    process.check_returncode()
    return json.loads(process.stdout.splitlines()[-1])


def markdown(results: dict[str, Any]) -> str:
    """The table as Markdown: a line per command, a column per checkout."""
    cells = results["cells"]
    lines = [f"| CPU seconds | {' | '.join(cells)} |", "|---|" + "---:|" * len(cells)]
    for name in next(iter(cells.values()))["cpu_seconds"]:
        values = " | ".join(f"{cell['cpu_seconds'][name]:.2f}" for cell in cells.values())
        lines.append(f"| {name} | {values} |")
    imported = [", ".join(cell["imported_by_a_run"]) or "none" for cell in cells.values()]
    note = (
        f"User + system time of a new process, median of {REPEATS}, after one that fills the file "
        f"cache; the commands take turns. Of {', '.join(LIBRARIES)}, the start of a run imports: "
    )
    note += "; ".join(f"{label}: {names}" for label, names in zip(cells, imported, strict=True))
    machines = [
        f"{label}: {describe_machine(cell['machine'])} Load average "
        f"{cell['machine']['load_average']}."
        for label, cell in cells.items()
    ]
    return "\n".join([*lines, "", f"{note}.", *machines, ""])


if __name__ == "__main__":
    main()
