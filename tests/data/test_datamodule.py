from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sample_images import load_image_folder, write_class_folders

from deephash.core.errors import UserError
from deephash.data.datamodule import Batch, HashingDataModule, ShuffledBatches
from deephash.data.datasets.digits import digits
from deephash.data.image_set import channel_statistics
from deephash.data.protocols import per_class
from deephash.data.splits import hold_out_validation


def make_data(batch_size: int = 100, **kwargs: object) -> HashingDataModule:
    image_set = digits()
    split = per_class(
        image_set, 0, queries_per_class=30, train_per_class=None, train_in_database=True
    )
    split = hold_out_validation(
        split, image_set.labels.numpy(), fraction=0.1, database_size=500, seed=0
    )
    return HashingDataModule(
        image_set,
        split,
        batch_size=batch_size,
        eval_batch_size=64,
        translate=1,
        cutout=0,
        flip=False,
        seed=0,
        **kwargs,  # type: ignore[arg-type]
    )


def test_an_epoch_has_each_training_image_once_in_batches_of_equal_size() -> None:
    data = make_data()
    batches = list(data.train_dataloader())
    indices = torch.cat([batch["indices"] for batch in batches])
    assert sorted(indices.tolist()) == data.split.train.tolist()
    sizes = {len(batch["labels"]) for batch in batches}
    assert max(sizes) <= 100
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_holds_the_images_and_labels_of_its_indices() -> None:
    image_set = digits()
    batch = next(iter(make_data().train_dataloader()))
    assert batch["images"].dtype == torch.uint8
    assert torch.equal(batch["images"], image_set.images[batch["indices"]])
    assert torch.equal(batch["labels"], image_set.labels[batch["indices"]])


def test_batches_are_on_the_device_of_the_images() -> None:
    batch = make_data().dataset.to(torch.device("meta"))[torch.arange(3)]
    assert {value.device.type for value in batch.values()} == {"meta"}  # type: ignore[attr-defined]
    assert batch["images"].shape == (3, 1, 16, 16)


@pytest.mark.parametrize("cache_decoded", [True, False])
def test_images_in_files_are_served_like_those_in_memory(
    cache_decoded: bool, tmp_path: Path
) -> None:
    """Cached, or decoded by two worker processes."""
    source = write_class_folders(tmp_path / "photos", per_class=20)
    in_files = load_image_folder(source, cache_decoded=cache_decoded)
    indices = torch.arange(len(in_files))
    in_memory = replace(in_files, images=in_files.images[indices])
    split = per_class(
        in_files, 0, queries_per_class=2, train_per_class=None, train_in_database=True
    )
    split = hold_out_validation(
        split, in_files.labels.numpy(), fraction=0.1, database_size=10, seed=0
    )
    served = []
    for image_set in (in_files, in_memory):
        settings = {"batch_size": 7, "eval_batch_size": 8, "translate": 1, "flip": True}
        data = HashingDataModule(image_set, split, **settings, cutout=0, seed=0)
        served.append([*data.train_dataloader(), *data.loader(split.database)])
    assert data.dataset.workers == 0
    for batch, expected in zip(*served, strict=True):
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[key], expected[key]) for key in batch)


def test_an_image_that_disappears_is_reported_by_a_loader_process_in_one_sentence(
    tmp_path: Path,
) -> None:
    source = write_class_folders(tmp_path / "photos", per_class=20)
    image_set = load_image_folder(source, cache_decoded=False)
    split = per_class(
        image_set, 0, queries_per_class=2, train_per_class=None, train_in_database=True
    )
    settings = {"batch_size": 7, "eval_batch_size": 8, "translate": 1, "flip": True}
    data = HashingDataModule(image_set, split, **settings, cutout=0, seed=0)
    assert data.dataset.workers == 2
    (source / image_set.ids[split.database[0]]).write_bytes(b"")
    with pytest.raises(UserError) as error:
        list(data.loader(split.database))
    path = source / image_set.ids[split.database[0]]
    message = (
        f"{path}: not an image in a known format. The file could be decoded when the run began."
    )
    assert str(error.value) == message


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = ShuffledBatches(np.arange(50), 8, seed)
        batches.set_epoch(epoch)
        return torch.cat(list(batches)).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4


class RecordingModule(pl.LightningModule):
    """Learns nothing, and records the order of each epoch's images and their pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[tuple[list[int], int]]] = {}

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        record = (batch["indices"].tolist(), int(batch["images"].sum()))
        self.seen.setdefault(self.current_epoch, []).append(record)
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(("cache_decoded", "workers"), [(True, 1), (False, 1), (False, 2)])
def test_a_resumed_run_sees_the_images_of_an_uninterrupted_one(
    cache_decoded: bool, workers: int, tmp_path: Path
) -> None:
    source = write_class_folders(tmp_path / "photos", per_class=12)
    image_set = load_image_folder(source, cache_decoded=cache_decoded, workers=workers)
    split = per_class(
        image_set, 0, queries_per_class=2, train_per_class=None, train_in_database=True
    )
    settings = {"batch_size": 5, "eval_batch_size": 8, "translate": 2, "flip": True}

    def train(epochs: int, ckpt_path: Path | None = None) -> dict[int, list]:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            limit_val_batches=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ModelCheckpoint(tmp_path / str(epochs), "last")],
        )
        module = RecordingModule()
        data = HashingDataModule(image_set, split, **settings, cutout=0, seed=0)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        return module.seen

    uninterrupted = train(4)
    assert train(2) | train(4, tmp_path / "2" / "last.ckpt") == uninterrupted
    assert len({str(order) for order in uninterrupted.values()}) == 4


def test_evaluation_is_in_order_and_complete() -> None:
    data = make_data()
    for loader, indices in zip(
        data.val_dataloader(),
        (data.split.validation, data.split.validation_database),
        strict=True,
    ):
        seen = torch.cat([batch["indices"] for batch in loader])
        assert seen.tolist() == indices.tolist()


def test_features_are_served_in_place_of_images() -> None:
    features = torch.randn(1797, 5)
    batch = next(iter(make_data(features=features).train_dataloader()))
    assert torch.equal(batch["images"], features[batch["indices"]])


def test_channel_statistics_match_float64() -> None:
    images = torch.randint(0, 256, (70, 3, 5, 6), dtype=torch.uint8)
    chosen = np.arange(10, 60)
    mean, std = channel_statistics(images, chosen)
    pixels = images[10:60].double()
    torch.testing.assert_close(mean.double(), pixels.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(std.double(), pixels.std(dim=(0, 2, 3), correction=0))
