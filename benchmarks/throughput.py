"""Images a second of a training epoch through Lightning, against a bare PyTorch loop.

    python benchmarks/throughput.py

Net, batches, augmentation and optimizer of the recipe; random images of CIFAR-10's and MNIST's
shape; epochs of both take turns. So do those of a bare loop that is otherwise: what the layout of
the images and the precision are worth, and compiling. Writes results/throughput.json and
throughput.md.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from machine import described, machine, write
from omegaconf import DictConfig
from torch import Tensor
from training import composed

from deephash.backbones import NormalizedBackbone
from deephash.data.augment import augment
from deephash.data.datamodule import HashingData, ShuffledBatches
from deephash.data.image_set import ImageSet, channel_statistics
from deephash.data.splits import Split
from deephash.training.callbacks import Curves
from deephash.training.modules import Classifier

ROWS = {  # overrides; channels, side and number of images
    "CIFAR-10, resnet_small": (["dataset=cifar10"], 3, 32, 5_000),
    "MNIST, LeNet": (["dataset=mnist"], 1, 28, 20_000),
}
AS_IT_IS = "as it is"
CHANGES = (AS_IT_IS, "compiled", "channels first", "32-true")  # of the first row's bare loop


def main() -> None:
    """Measure both ways in turns, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--precision", default="bf16-mixed", choices=["bf16-mixed", "32-true"])
    options = parser.parse_args()
    rows = {}
    for name, (overrides, channels, side, n) in ROWS.items():
        cfg = composed(overrides)
        image_set = random_images(channels, side, n)
        speeds: dict[str, list[float]] = {"lightning": [], "bare loop": []}
        for turn in range(options.turns + 1):
            for way, epoch in (("lightning", lightning_epoch), ("bare loop", bare_epoch)):
                pl.seed_everything(0, verbose=False)
                speed = epoch(image_set, backbone(cfg, image_set), cfg, options.precision)
                if turn:  # the first warms up
                    speeds[way].append(speed)
        rows[name] = {way: statistics.median(values) for way, values in speeds.items()}
    settings = {"turns": options.turns, "precision": options.precision}
    changed = changed_steps(options.turns, options.precision)
    figures = {"images_per_second": rows, "changed": changed, **settings}
    figures |= machine("pytorch-lightning")
    write("throughput", figures, markdown(figures))


def changed_steps(turns: int, precision: str) -> dict[str, float]:
    """Images a second of the first row's bare loop, as it is and changed."""
    overrides, channels, side, n = next(iter(ROWS.values()))
    cfg = composed(overrides)
    image_set = random_images(channels, side, n)
    nets = {change: backbone(cfg, image_set) for change in CHANGES}
    nets["compiled"].compile()
    nets["channels first"] = ChannelsFirst(
        nets["channels first"].backbone, *channel_statistics(image_set.images, np.arange(n))
    )
    speeds: dict[str, list[float]] = {change: [] for change in CHANGES}
    for turn in range(turns + 1):
        for change, net in nets.items():
            of_it = "32-true" if change == "32-true" else precision
            speed = bare_epoch(image_set, net, cfg, of_it)
            if turn:  # the first warms up, and compiles
                speeds[change].append(speed)
    return {change: statistics.median(values) for change, values in speeds.items()}


class ChannelsFirst(NormalizedBackbone):
    """In torch's own layout."""

    def __init__(self, net: torch.nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__(net, mean, std)
        self.backbone.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        """See `NormalizedBackbone`."""
        return self.backbone(self.standardized(images).contiguous()).to(self.mean)


def backbone(cfg: DictConfig, image_set: ImageSet) -> NormalizedBackbone:
    """The recipe's net, on uint8 images."""
    _, channels, height, width = image_set.images.shape
    net = instantiate(cfg.backbone, channels, (height, width))
    everything = np.arange(len(image_set.images))
    return NormalizedBackbone(net, *channel_statistics(image_set.images, everything))


def random_images(channels: int, side: int, n: int) -> ImageSet:
    """Noise: the time of a step does not depend on what it sees."""
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="noise",
        images=torch.randint(
            0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8
        ),
        labels=torch.randint(0, 10, (n,), generator=generator),
        ids=np.arange(n).astype(str),
        classes=tuple(map(str, range(10))),
        is_test=np.zeros(n, dtype=bool),
    )


def lightning_epoch(
    image_set: ImageSet, net: NormalizedBackbone, cfg: DictConfig, precision: Any
) -> float:
    """As a run pre-trains: data module, module, curves."""
    phase = cfg.phase.pretrain
    everything = np.arange(len(image_set.images))
    split = Split(everything, everything[:1], everything, everything[:1], everything[:1])
    data = HashingData(
        image_set,
        split,
        batch_size=phase.batch_size,
        eval_batch_size=cfg.evaluation.batch_size,
        **cfg.augment,
        seed=0,
    )
    module = Classifier(
        net,
        len(image_set.classes),
        multi_label=False,
        label_smoothing=phase.label_smoothing,
        optimizer=instantiate(phase.optimizer, _partial_=True),
        warmup=phase.warmup,
        identity={},
    )
    curves = Curves("pretrain", first_step=0)
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


def bare_epoch(
    image_set: ImageSet, net: NormalizedBackbone, cfg: DictConfig, precision: str
) -> float:
    """The same by hand, without schedule and curves."""
    phase = cfg.phase.pretrain
    classifier = torch.nn.Linear(net.num_features, len(image_set.classes))
    optimizer = instantiate(
        phase.optimizer, [*net.parameters(), *classifier.parameters()], _convert_="object"
    )
    net.train()
    began = time.perf_counter()
    for indices in ShuffledBatches(np.arange(len(image_set.images)), phase.batch_size, seed=0):
        images = augment(image_set.images[indices], indices, **cfg.augment, seed=0, epoch=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            features = net(images)
        logits = classifier(features)
        loss = F.cross_entropy(
            logits, image_set.labels[indices], label_smoothing=phase.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(image_set.images) / (time.perf_counter() - began)


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = ["| images a second | Lightning | bare loop | ratio |", "|---|---:|---:|---:|"]
    for name, speeds in figures["images_per_second"].items():
        ours, bare = speeds["lightning"], speeds["bare loop"]
        lines.append(f"| {name} | {ours:,.0f} | {bare:,.0f} | {ours / bare:.3f} |")
    how = (
        f"Pre-training by the recipe, {figures['precision']}, median of {figures['turns']} epochs."
    )
    as_it_is, *changed = figures["changed"].items()
    others = ", ".join(f"{name} {speed / as_it_is[1]:.2f}" for name, speed in changed)
    how = f"{how} The first row's bare loop changed, in times of its speed: {others}."
    return "\n".join([*lines, "", f"{how} {described(figures)}", ""])


if __name__ == "__main__":
    main()
