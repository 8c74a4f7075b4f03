"""What many processes cost: measured on a CPU, reckoned for 8 to 512 GPUs.

`python benchmarks/scaling.py` measures the gathering of a batch's codes and the sum of gradients
over 1, 2 and 4 gloo processes, reckons a step and an evaluation on GPUs from the assumptions below,
and writes results/scaling.json and scaling.md.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from machine import described, machine, write

from deephash.core import distributed

PROCESSES, REPEATS = (1, 2, 4), 30
ROWS, BITS = 256, 64  # of a process's share of a batch
PARAMETERS = {"1.5 M (resnet_small)": 1_500_000, "25.6 M (ResNet-50)": 25_600_000}

GPUS = (8, 16, 32, 64, 128, 256, 512)
DATABASE, QUERIES = 10**8, 10**4


@dataclass(frozen=True)
class Assumed:
    """Rates that were not measured, of the order of an H100's among 8 a machine.

    Attributes:
        images: that ResNet-50 trains on a second, in bfloat16.
        encoded: that it encodes a second.
        memory: bytes a second of the GPU's memory.
        link: bytes a second between machines, a GPU.
        latency: seconds of a collective, a machine.
        popcounts: comparisons of 64 bits a second.
    """

    images: float = 2_500
    encoded: float = 7_500
    memory: float = 3.35e12
    link: float = 50e9
    latency: float = 20e-6
    popcounts: float = 1e11


PASSES = 14  # of a value for a pair and a bit through the memory: forward, again, backward


def main() -> None:
    """Measure, reckon, and write both."""
    measured = {count: measure(count) for count in PROCESSES}
    reckoned = [step(gpus, Assumed()) for gpus in GPUS]
    figures = {"measured": measured, "reckoned": reckoned, "threads": 1, **machine()}
    write("scaling", figures, markdown(figures))


def measure(count: int) -> dict[str, float]:
    """Milliseconds by what was done, on the first of `count` processes; the median."""
    with tempfile.TemporaryDirectory() as folder:
        found = mp.get_context("spawn").SimpleQueue()
        mp.spawn(_process, (count, f"file://{folder}/meeting", found), nprocs=count)
        return found.get()


def _process(rank: int, count: int, meeting: str, found: Any) -> None:
    torch.set_num_threads(1)
    processes.rank_zero_only.rank = rank  # type: ignore[attr-defined]
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    logits = torch.randn(ROWS, BITS, requires_grad=True)

    def gather() -> None:
        distributed.all_gather_with_grad(logits, ROWS * count).sum().backward()

    milliseconds = {"gather, forward and backward": _median(gather)}
    for name, size in PARAMETERS.items():
        gradient = torch.ones(size)
        milliseconds[f"sum of gradients, {name}"] = _median(partial(dist.all_reduce, gradient))
    if rank == 0:
        found.put(milliseconds)
    dist.destroy_process_group()


def _median(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        dist.barrier()
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def step(gpus: int, rate: Assumed) -> dict[str, float]:
    """Seconds of a step's parts and bytes of its pairs; seconds of a large evaluation."""
    batch = ROWS * gpus
    machines = -(-gpus // 8)
    pair_bytes = PASSES * 4 * BITS
    codes, gradients = 4 * BITS * batch, 4 * PARAMETERS["25.6 M (ResNet-50)"]
    return {
        "gpus": gpus,
        "batch": batch,
        "net": ROWS / rate.images,
        "gather": 2 * codes / rate.link + 2 * machines * rate.latency,
        "gradients": 2 * gradients / rate.link + 2 * machines * rate.latency,
        "pairs": batch**2 / gpus * pair_bytes / rate.memory,
        "pairs, not shared out": batch**2 * pair_bytes / rate.memory,
        "pair matrix": 4 * batch**2,
        "encode": DATABASE / rate.encoded / gpus,
        "evaluate on one": DATABASE * QUERIES / rate.popcounts,
        "evaluate on all": DATABASE * QUERIES / rate.popcounts / gpus,
    }


def markdown(figures: dict[str, Any]) -> str:
    """What was measured, what was assumed, what follows."""
    measured = {int(count): row for count, row in figures["measured"].items()}
    names = list(measured[1])
    head = "| milliseconds | " + " | ".join(f"{count} processes" for count in measured) + " |\n"
    rows = "".join(
        f"| {name} | " + " | ".join(f"{row[name]:.2f}" for row in measured.values()) + " |\n"
        for name in names
    )
    steps = "".join(
        f"| {row['gpus']} | {row['batch']:,} | {1e3 * row['net']:.0f} | {1e3 * row['gather']:.1f} "
        f"| {1e3 * row['gradients']:.1f} | {1e3 * row['pairs']:,.1f} "
        f"| {1e3 * row['pairs, not shared out']:,.0f} | {row['pair matrix'] / 1e9:,.2f} "
        f"| {row['encode'] / 60:.1f} | {row['evaluate on one']:.0f} "
        f"| {row['evaluate on all']:.2f} |\n"
        for row in figures["reckoned"]
    )
    rate = Assumed()
    first = next(row for row in figures["reckoned"] if row["pairs, not shared out"] > row["net"])
    return (
        f"Measured: {ROWS} codes of {BITS} bits a process, gloo, one thread a process, median of "
        f"{REPEATS}. {described(figures)} More processes than cores take turns.\n\n"
        f"{head}|---|{'---:|' * len(measured)}\n{rows}\n"
        f"Reckoned for ResNet-50 and {ROWS} images a GPU, {BITS} bits. Assumed, not measured: "
        f"{rate.images:,.0f} images a second trained and {rate.encoded:,.0f} encoded a GPU, "
        f"{rate.memory / 1e12:.2f} TB/s of memory, {rate.link / 1e9:.0f} GB/s between machines a "
        f"GPU, {rate.latency * 1e6:.0f} microseconds a machine and collective, "
        f"{rate.popcounts / 1e9:.0f} billion comparisons a second; the pairs' loss is bound by "
        f"memory, {PASSES} passes of 4 bytes a pair and bit.\n\n"
        "| GPUs | batch | net, ms | gather, ms | gradients, ms | pairs, ms "
        "| pairs if not shared out, ms | one pair matrix, GB | encode 10^8, min "
        "| evaluate on one, s | on all, s |\n"
        f"|{'---:|' * 11}\n{steps}\n"
        "Gradients are summed while the backward pass goes on. Each process computes the pairs of "
        "its rows with all; did each compute all pairs, as a loss does that is written for the "
        f"whole batch alone, they would take longer than the net from {first['gpus']} GPUs on. A "
        "matrix of all pairs would not fit; the joint loss takes 2^24 pairs at a time.\n\n"
        "What breaks first is the host's memory: each process holds all images of a set. 10^8 have "
        "to be read from files, batch by batch, which is not built. Codes are small: 10^8 of 64 "
        "bits are 0.8 GB on the first process, which evaluates alone while the others wait; where "
        "that is slow, histograms of shards of the database add up.\n"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
