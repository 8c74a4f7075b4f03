"""Cost of distributed training: measured on a CPU, estimated for 8 to 512 GPUs.

    python -m benchmarks.speed.scaling

Measures the gathering of the codes of a batch and the sum of gradients over 1, 2 and 4 gloo
processes; estimates a step and an evaluation on GPUs from the assumptions below. Writes
results/scaling.*.
"""

import argparse
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

from benchmarks.machine import describe_machine, machine_info, write_results
from deephash.core.distributed import all_gather_with_grad

PROCESSES, REPEATS = (1, 2, 4), 30
LOCAL_BATCH, BITS = 256, 64  # rows of a batch per process
PARAMETERS = {"1.5 M (resnet_small)": 1_500_000, "25.6 M (ResNet-50)": 25_600_000}

GPUS = (8, 16, 32, 64, 128, 256, 512)
DATABASE, QUERIES = 10**8, 10**4


@dataclass(frozen=True)
class AssumedRates:
    """Rates that were not measured: roughly those of an H100, with 8 per machine.

    Attributes:
        train: images per second that ResNet-50 is trained on, in bfloat16.
        encode: images per second that it encodes.
        memory: bytes per second of the GPU's memory.
        link: bytes per second between machines, per GPU.
        latency: seconds of a collective, per machine.
        popcounts: comparisons of 64 bits per second.
    """

    train: float = 2_500
    encode: float = 7_500
    memory: float = 3.35e12
    link: float = 50e9
    latency: float = 20e-6
    popcounts: float = 1e11


PASSES = 14  # through memory, per pair and bit: forward, recomputation, backward


def main() -> None:
    """Measure, estimate, and write both."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    measured = {count: measure(count) for count in PROCESSES}
    estimated = [estimate_step(gpus, AssumedRates()) for gpus in GPUS]
    results = {"measured": measured, "estimated": estimated, "threads": 1, **machine_info()}
    write_results("scaling", results, markdown(results))


def measure(num_processes: int) -> dict[str, float]:
    """Median milliseconds of each operation on rank zero of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        queue = mp.get_context("spawn").SimpleQueue()
        arguments = (num_processes, f"file://{folder}/rendezvous", queue)
        mp.spawn(_run_process, arguments, nprocs=num_processes)
        return queue.get()


def _run_process(rank: int, num_processes: int, init_method: str, queue: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=num_processes)
    logits = torch.randn(LOCAL_BATCH, BITS, requires_grad=True)

    def gather() -> None:
        all_gather_with_grad(logits, LOCAL_BATCH * num_processes).sum().backward()

    milliseconds = {"gather, forward and backward": _median_milliseconds(gather)}
    for name, size in PARAMETERS.items():
        all_reduce = partial(dist.all_reduce, torch.ones(size))
        milliseconds[f"sum of gradients, {name}"] = _median_milliseconds(all_reduce)
    if rank == 0:
        queue.put(milliseconds)
    dist.destroy_process_group()


def _median_milliseconds(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        dist.barrier()
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def estimate_step(gpus: int, rates: AssumedRates) -> dict[str, float]:
    """Seconds of the parts of a step, bytes of its pair matrix, seconds of a large evaluation."""
    batch = LOCAL_BATCH * gpus
    machines = -(-gpus // 8)
    bytes_per_pair = PASSES * 4 * BITS
    code_bytes, gradient_bytes = 4 * BITS * batch, 4 * PARAMETERS["25.6 M (ResNet-50)"]
    latency = 2 * machines * rates.latency
    return {
        "gpus": gpus,
        "batch": batch,
        "net": LOCAL_BATCH / rates.train,
        "gather": 2 * code_bytes / rates.link + latency,
        "gradients": 2 * gradient_bytes / rates.link + latency,
        "pairs": batch**2 / gpus * bytes_per_pair / rates.memory,
        "pairs, not sharded": batch**2 * bytes_per_pair / rates.memory,
        "pair matrix": 4 * batch**2,
        "encode": DATABASE / rates.encode / gpus,
        "evaluate on one": DATABASE * QUERIES / rates.popcounts,
        "evaluate on all": DATABASE * QUERIES / rates.popcounts / gpus,
    }


def markdown(results: dict[str, Any]) -> str:
    """Measurements, assumptions and estimates as Markdown."""
    measured = {int(count): row for count, row in results["measured"].items()}
    names = list(measured[1])
    plural = {count: f"{count} process{'es' if count > 1 else ''}" for count in measured}
    header = f"| milliseconds | {' | '.join(plural.values())} |\n"
    rows = "".join(
        f"| {name} | " + " | ".join(f"{row[name]:.2f}" for row in measured.values()) + " |\n"
        for name in names
    )
    steps = "".join(
        f"| {row['gpus']} | {row['batch']:,} | {1e3 * row['net']:.0f} | {1e3 * row['gather']:.1f} "
        f"| {1e3 * row['gradients']:.1f} | {1e3 * row['pairs']:,.1f} "
        f"| {1e3 * row['pairs, not sharded']:,.0f} | {row['pair matrix'] / 1e9:,.2f} "
        f"| {row['encode'] / 60:.1f} | {row['evaluate on one']:.0f} "
        f"| {row['evaluate on all']:.2f} |\n"
        for row in results["estimated"]
    )
    rates = AssumedRates()
    slower = next(row for row in results["estimated"] if row["pairs, not sharded"] > row["net"])
    return (
        f"Measured: {LOCAL_BATCH} codes of {BITS} bits per process, gloo, one thread per process, "
        f"median of {REPEATS}. {describe_machine(results)} More processes than cores take turns."
        "\n\n"
        f"{header}|---|{'---:|' * len(measured)}\n{rows}\n"
        f"Estimated for ResNet-50, {LOCAL_BATCH} images per GPU and {BITS} bits. Assumed, not "
        f"measured: per GPU {rates.train:,.0f} images per second in training and "
        f"{rates.encode:,.0f} in encoding, {rates.memory / 1e12:.2f} TB/s of memory bandwidth, "
        f"{rates.link / 1e9:.0f} GB/s between machines and {rates.popcounts / 1e9:.0f} billion "
        f"comparisons per second; {rates.latency * 1e6:.0f} microseconds per machine and "
        f"collective. The loss over pairs is bound by memory: {PASSES} passes of 4 bytes per pair "
        "and bit.\n\n"
        "| GPUs | batch | net, ms | gather, ms | gradients, ms | pairs, ms "
        "| pairs if not sharded, ms | one pair matrix, GB | encode 10^8, min "
        "| evaluate on one, s | on all, s |\n"
        f"|{'---:|' * 11}\n{steps}\n"
        "Gradients are summed during the backward pass. Each process computes the pairs of its own "
        "rows with all rows. If each computed all pairs of the batch, that would take longer than "
        f"the net from {slower['gpus']} GPUs on. A matrix of all pairs would not fit into memory; "
        "the joint loss takes 2^24 pairs at a time.\n\n"
        "The first bottleneck is the memory of the host: each process holds all images of a set. "
        "10^8 images have to be read from files, batch by batch, which has not been tried at this "
        "size. Codes are small: 10^8 of 64 bits are 0.8 GB on the first process, which evaluates "
        "alone while the others wait; where that is slow, histograms of shards of the database can "
        "be added.\n"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
