"""Images per second of a training epoch by Lightning, against a bare PyTorch loop.

    python -m benchmarks.speed.throughput

Net, batches, augmentation and optimizer are those of the recipe; the images are random, in the
shapes of CIFAR-10 and MNIST; epochs of both loops take turns. A second comparison changes the bare
loop: compilation, memory layout of the images, precision. Writes results/throughput.*.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import describe_machine, machine_info, write_results
from deephash.backbones import NormalizedBackbone
from deephash.cli.compose import compose_config
from deephash.core.instantiate import build
from deephash.data.augment import augment
from deephash.data.datamodule import HashingDataModule, ShuffledBatches
from deephash.data.image_set import ImageSet, channel_statistics
from deephash.data.splits import Split
from deephash.experiment.settings import Settings, validate_settings
from deephash.training.callbacks import CurveRecorder
from deephash.training.modules import Classifier
from deephash.training.optimization import PhaseOptimization
from deephash.training.settings import ClassifyPhase

ROWS = {  # overrides; channels, side and number of images
    "CIFAR-10, resnet_small": (["dataset=cifar10"], 3, 32, 5_000),
    "MNIST, LeNet": (["dataset=mnist"], 1, 28, 20_000),
}
UNCHANGED = "unchanged"
CHANGES = (UNCHANGED, "compiled", "channels first", "32-true")  # of the first row's bare loop
NUM_CLASSES = 10


def main() -> None:
    """Measure both loops in turns, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=9, help="epochs that are measured")
    parser.add_argument("--precision", default="bf16-mixed", choices=["bf16-mixed", "32-true"])
    options = parser.parse_args()
    rows = {}
    for name, (overrides, *size) in ROWS.items():
        settings = validate_settings(compose_config(overrides))
        images = make_random_images(*size)
        speeds: dict[str, list[float]] = {"lightning": [], "bare loop": []}
        for turn in range(options.turns + 1):
            for loop, run in (("lightning", run_lightning_epoch), ("bare loop", run_bare_epoch)):
                pl.seed_everything(0, verbose=False)
                net = build_backbone(settings, images)
                speed = run(images, net, settings, options.precision)
                if turn:  # the first epoch warms up
                    speeds[loop].append(speed)
        rows[name] = {loop: statistics.median(values) for loop, values in speeds.items()}
    changed = measure_changes(options.turns, options.precision)
    results = {
        "images_per_second": rows,
        "changed": changed,
        "turns": options.turns,
        "precision": options.precision,
        **machine_info("pytorch-lightning"),
    }
    write_results("throughput", results, markdown(results))


def measure_changes(turns: int, precision: str) -> dict[str, float]:
    """Images per second of the first row's bare loop, unchanged and with each change."""
    overrides, *size = next(iter(ROWS.values()))
    settings = validate_settings(compose_config(overrides))
    images = make_random_images(*size)
    nets = {change: build_backbone(settings, images) for change in CHANGES}
    nets["compiled"].compile()
    nets["channels first"] = ChannelsFirst(
        nets["channels first"].backbone, *statistics_of_all(images)
    )
    speeds: dict[str, list[float]] = {change: [] for change in CHANGES}
    for turn in range(turns + 1):
        for change, net in nets.items():
            net_precision = "32-true" if change == "32-true" else precision
            speed = run_bare_epoch(images, net, settings, net_precision)
            if turn:  # the first epoch warms up and compiles
                speeds[change].append(speed)
    return {change: statistics.median(values) for change, values in speeds.items()}


class ChannelsFirst(NormalizedBackbone):
    """`NormalizedBackbone` in torch's contiguous layout."""

    def __init__(self, net: torch.nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__(net, mean, std)
        self.backbone.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (n, c, h, w) to features (n, num_features)."""
        return self.backbone(self.standardize(images).contiguous()).to(self.mean)


def build_backbone(settings: Settings, image_set: ImageSet) -> NormalizedBackbone:
    """The net of the recipe, for uint8 images."""
    _, channels, height, width = image_set.images.shape
    net = build("backbone", settings.backbone, channels, (height, width))
    return NormalizedBackbone(net, *statistics_of_all(image_set))


def statistics_of_all(image_set: ImageSet) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all images."""
    return channel_statistics(image_set.images, np.arange(len(image_set)))


def make_random_images(channels: int, side: int, count: int) -> ImageSet:
    """Noise: the time of a step does not depend on the content of the images."""
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="noise",
        images=torch.randint(
            0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8
        ),
        labels=torch.randint(0, NUM_CLASSES, (count,), generator=generator),
        ids=np.arange(count).astype(str),
        classes=tuple(map(str, range(NUM_CLASSES))),
        is_test=np.zeros(count, dtype=bool),
    )


def pretraining_phase(settings: Settings) -> ClassifyPhase:
    """The settings of the pre-training."""
    phase = settings.training["pretrain"]
    assert isinstance(phase, ClassifyPhase)
    return phase


def run_lightning_epoch(
    image_set: ImageSet, net: NormalizedBackbone, settings: Settings, precision: Any
) -> float:
    """Pre-train as a run does, with data module and curves; return images per second."""
    phase = pretraining_phase(settings)
    optimization = PhaseOptimization("training.pretrain", phase, torch.bfloat16)
    indices = np.arange(len(image_set))
    split = Split(indices, indices[:1], indices, indices[:1], indices[:1])
    data = HashingDataModule(
        image_set,
        split,
        batch_size=phase.batch_size,
        eval_batch_size=settings.evaluation.batch_size,
        **settings.augment.model_dump(),
        seed=0,
    )
    module = Classifier(
        net,
        NUM_CLASSES,
        multi_label=False,
        label_smoothing=phase.label_smoothing,
        make_optimizer=optimization.make_optimizer,
        schedule=optimization.schedule,
        identity={},
    )
    curves = CurveRecorder("pretrain", first_step=0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        precision=precision,
        callbacks=[curves],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    return curves.rows[-1]["pretrain/images_per_second"]


def run_bare_epoch(
    image_set: ImageSet, net: NormalizedBackbone, settings: Settings, precision: str
) -> float:
    """Pre-train by a plain loop, without schedule and curves; return images per second."""
    phase = pretraining_phase(settings)
    augmentation = settings.augment.model_dump()
    classifier = torch.nn.Linear(net.num_features, NUM_CLASSES)
    parameters = [*net.parameters(), *classifier.parameters()]
    optimizer = build("training.pretrain.optimizer", phase.optimizer, parameters)
    net.train()
    start = time.perf_counter()
    for indices in ShuffledBatches(np.arange(len(image_set)), phase.batch_size, seed=0):
        images = augment(image_set.images[indices], indices, **augmentation, seed=0, epoch=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            features = net(images)
        logits = classifier(features)
        loss = F.cross_entropy(
            logits, image_set.labels[indices], label_smoothing=phase.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(image_set) / (time.perf_counter() - start)


def markdown(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = ["| images per second | Lightning | bare loop | ratio |", "|---|---:|---:|---:|"]
    for name, speeds in results["images_per_second"].items():
        lightning, bare = speeds["lightning"], speeds["bare loop"]
        lines.append(f"| {name} | {lightning:,.0f} | {bare:,.0f} | {lightning / bare:.3f} |")
    (_, reference), *changed = results["changed"].items()
    ratios = ", ".join(f"{name} {speed / reference:.2f}" for name, speed in changed)
    note = (
        f"Pre-training by the recipe, {results['precision']}, median of {results['turns']} epochs. "
        f"Changes to the bare loop of the first row, relative to its speed: {ratios}."
    )
    return "\n".join([*lines, "", f"{note} {describe_machine(results)}", ""])


if __name__ == "__main__":
    main()
