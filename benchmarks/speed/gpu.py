"""What a GPU does: a training step by its parts, k-NN search and distance histograms.

    python -m benchmarks.speed.gpu

The step is that of the pre-training of `experiment=cifar10_best`, on random images. A part's time
is that of the host and the GPU together, synchronised; the time on the GPU alone is the sum over
its kernels, read from torch's profiler, so that the difference is time the GPU waits. The search is
compared with the product of matrices that it is made of. Writes results/gpu_speed.*.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import describe_machine, machine_info, write_results
from benchmarks.speed.throughput import build_backbone, make_random_images, pretraining_phase
from deephash.cli.compose import compose_config
from deephash.core.instantiate import build
from deephash.data.augment import augment
from deephash.experiment.settings import validate_settings
from deephash.hamming import gpu

RECIPE = ["experiment=cifar10_best", "trainer=gpu"]
TURNS = 30  # measured repetitions
SEARCHES = {  # items, words of 64 bits, queries
    "10M x 64 bits, 1,000 queries": (10_000_000, 1, 1_000),
    "10M x 64 bits, one query": (10_000_000, 1, 1),
    "100k x 4,160 bits, 1,000 queries": (100_000, 65, 1_000),
}
K = 100


def main() -> None:
    """Measure, and write the results."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    results = {
        "step": measure_step(),
        "searches": {name: measure_search(*size) for name, size in SEARCHES.items()},
        "histogram": measure_histogram(),
        "gpu": torch.cuda.get_device_name(),
        **machine_info("pytorch-lightning"),
    }
    write_results("gpu_speed", results, markdown(results))


def time_synchronised(compute: Callable[[], object], turns: int = TURNS) -> float:
    """Median milliseconds of a call, from an idle GPU to an idle GPU, after warming up."""
    milliseconds = []
    for turn in range(-5, turns):
        torch.cuda.synchronize()
        start = time.perf_counter()
        compute()
        torch.cuda.synchronize()
        if turn >= 0:
            milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(milliseconds)


def measure_step() -> dict[str, float]:
    """Milliseconds of a step and of its parts, and the milliseconds and kernels of the GPU."""
    settings = validate_settings(compose_config(RECIPE))
    phase = pretraining_phase(settings)
    image_set = make_random_images(3, 32, phase.batch_size)
    assert isinstance(image_set.images, Tensor)
    images = image_set.images.cuda()
    labels = image_set.labels.cuda()
    indices = torch.arange(len(images), device="cuda")
    net = build_backbone(settings, image_set).cuda().train()
    classifier = torch.nn.Linear(net.num_features, 10).cuda()
    optimizer = build(
        "training.pretrain.optimizer",
        phase.optimizer,
        [*net.parameters(), *classifier.parameters()],
    )

    def augment_batch() -> Tensor:
        return augment(images, indices, **settings.augment.model_dump(), seed=0, epoch=0)

    def compute_gradients(batch: Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = classifier(net(batch))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=phase.label_smoothing)
        optimizer.zero_grad()
        loss.backward()

    def run_step() -> None:
        compute_gradients(augment_batch())
        optimizer.step()

    batch = augment_batch()
    times = {
        "step": time_synchronised(run_step),
        "augmentation": time_synchronised(augment_batch),
        "forward and backward": time_synchronised(lambda: compute_gradients(batch)),
        "optimizer": time_synchronised(optimizer.step),
    }
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(TURNS):
            run_step()
        torch.cuda.synchronize()
    on_gpu = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [event for event in on_gpu if not event.is_user_annotation]
    busy = sum(event.self_device_time_total for event in kernels) / TURNS / 1000
    return {**times, "on the GPU": busy, "kernels": len(kernels) / TURNS}


def measure_search(items: int, words: int, queries: int) -> dict[str, float]:
    """Milliseconds of a search and of the bare product of matrices, and the search's memory."""
    database, query = random_words(items, words), random_words(queries, words)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    milliseconds = time_synchronised(lambda: gpu.k_nearest(query, database, K), turns=5)
    memory = (torch.cuda.max_memory_allocated() - before) / 1e6

    signs = torch.ones(100_000, 64 * words, dtype=torch.float16, device="cuda")
    query_signs = torch.ones(queries, 64 * words, dtype=torch.float16, device="cuda")
    product = time_synchronised(lambda: query_signs @ signs.T, turns=5) * items / len(signs)
    return {"milliseconds": milliseconds, "product": product, "memory_mb": memory}


def measure_histogram(queries: int = 1_000, items: int = 1_000_000) -> float:
    """Milliseconds of the distance histogram of 64-bit codes with one label each."""
    query, database = random_words(queries, 1), random_words(items, 1)
    query_keys, database_keys = (torch.randint(10, (n,), device="cuda") for n in (queries, items))
    return time_synchronised(
        lambda: gpu.histogram(query, query_keys, database, database_keys, bits=64), turns=5
    )


def random_words(count: int, words: int) -> Tensor:
    """Random packed codes on the GPU, int64 (count, words)."""
    return torch.randint(-(2**63), 2**63 - 1, (count, words), device="cuda")


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown tables."""
    step = results["step"]
    lines = ["| a training step of cifar10_best | ms |", "|---|---:|"]
    parts = ("step", "augmentation", "forward and backward", "optimizer", "on the GPU")
    lines += [f"| {name} | {step[name]:.2f} |" for name in parts]
    lines += ["", f"| {K} nearest | ms | product of matrices | MB |", "|---|---:|---:|---:|"]
    for name, search in results["searches"].items():
        times = f"{search['milliseconds']:.1f} | {search['product']:.1f}"
        lines.append(f"| {name} | {times} | {search['memory_mb']:,.0f} |")
    note = (
        f"A step launches {step['kernels']:.0f} kernels. A distance histogram of 1,000 queries in "
        f"1,000,000 codes of 64 bits takes {results['histogram']:.0f} ms. Medians."
    )
    return "\n".join([*lines, "", f"{note} {describe_machine(results)}", ""])


if __name__ == "__main__":
    main()
