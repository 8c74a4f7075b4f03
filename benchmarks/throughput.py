"""Images a second of a training epoch through Lightning, against a bare PyTorch loop.

    python benchmarks/throughput.py

Same net, batches, augmentation, precision and optimizer; random images of CIFAR-10's and MNIST's
shape; epochs of both take turns. Writes results/throughput.json and throughput.md.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from machine import described, machine, write

from deephash.backbones import LeNet, ResNetSmall, Standardized
from deephash.curves import Curves
from deephash.data.augment import augmented
from deephash.data.datamodule import HashingData, ShuffledBatches
from deephash.data.image_set import ImageSet, channel_statistics
from deephash.data.protocols import Split
from deephash.module import Classify

BATCH, CLASSES = 250, 10
NETS = {"resnet_small, 3 x 32 x 32": (3, 32, 5_000), "lenet, 1 x 28 x 28": (1, 28, 20_000)}


def main() -> None:
    """Measure both ways in turns, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--precision", default="bf16-mixed", choices=["bf16-mixed", "32-true"])
    options = parser.parse_args()
    rows = {}
    for name, (channels, side, n) in NETS.items():
        image_set = random_images(channels, side, n)
        speeds: dict[str, list[float]] = {"lightning": [], "bare loop": []}
        for turn in range(options.turns + 1):
            for way, epoch in (("lightning", lightning_epoch), ("bare loop", bare_epoch)):
                pl.seed_everything(0, verbose=False)
                net = LeNet(channels, (side, side)) if channels == 1 else resnet(channels, side)
                speed = epoch(image_set, net, options.precision)
                if turn:  # the first warms up
                    speeds[way].append(speed)
        rows[name] = {way: statistics.median(values) for way, values in speeds.items()}
    settings = {"turns": options.turns, "precision": options.precision, "batch": BATCH}
    figures = {"images_per_second": rows, **settings, **machine("pytorch-lightning")}
    write("throughput", figures, markdown(figures))


def resnet(channels: int, side: int) -> ResNetSmall:
    """The net of the CIFAR-10 recipe."""
    return ResNetSmall(channels, (side, side), widths=[64, 192, 256])


def random_images(channels: int, side: int, n: int) -> ImageSet:
    """Noise: the time of a step does not depend on what it sees."""
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="noise",
        images=torch.randint(
            0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8
        ),
        labels=torch.randint(0, CLASSES, (n,), generator=generator),
        ids=np.arange(n).astype(str),
        classes=tuple(map(str, range(CLASSES))),
        is_test=np.zeros(n, dtype=bool),
    )


def standardized(image_set: ImageSet, net: torch.nn.Module) -> Standardized:
    """The net on uint8 images."""
    return Standardized(
        net, *channel_statistics(image_set.images, np.arange(len(image_set.images)))
    )


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    """That of the recipes."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)


def lightning_epoch(image_set: ImageSet, net: torch.nn.Module, precision: Any) -> float:
    """As a run trains: data module, module, curves."""
    everything = np.arange(len(image_set.images))
    split = Split(everything, everything[:1], everything, everything[:1], everything[:1])
    data = HashingData(
        image_set,
        split,
        batch_size=BATCH,
        eval_batch_size=1000,
        translate=3,
        flip=True,
        cutout=0,
        seed=0,
    )
    module = Classify(
        standardized(image_set, net),
        CLASSES,
        label_smoothing=0.1,
        optimizer=optimizer,
        warmup=0.2,
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


def bare_epoch(image_set: ImageSet, net: torch.nn.Module, precision: str) -> float:
    """The same by hand."""
    model = torch.nn.Sequential(standardized(image_set, net))
    classifier = torch.nn.Linear(net.num_features, CLASSES)  # type: ignore[arg-type]
    stepping = optimizer([*model.parameters(), *classifier.parameters()])
    model.train()
    began = time.perf_counter()
    for indices in ShuffledBatches(np.arange(len(image_set.images)), BATCH, seed=0):
        images = augmented(
            image_set.images[indices], indices, translate=3, flip=True, cutout=0, seed=0, epoch=0
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            features = model(images)
        logits = classifier(features)
        loss = F.cross_entropy(logits, image_set.labels[indices], label_smoothing=0.1)
        stepping.zero_grad()
        loss.backward()
        stepping.step()
    return len(image_set.images) / (time.perf_counter() - began)


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = ["| images a second | Lightning | bare loop | ratio |", "|---|---:|---:|---:|"]
    for name, speeds in figures["images_per_second"].items():
        ours, bare = speeds["lightning"], speeds["bare loop"]
        lines.append(f"| {name} | {ours:,.0f} | {bare:,.0f} | {ours / bare:.3f} |")
    how = f"Batch {figures['batch']}, {figures['precision']}, median of {figures['turns']} epochs."
    return "\n".join([*lines, "", f"{how} {described(figures)}", ""])


if __name__ == "__main__":
    main()
