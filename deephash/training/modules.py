"""The LightningModules: a backbone under a classifier, a backbone under a hash head."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MultilabelAccuracy

from deephash.core import distributed
from deephash.core.errors import UserError
from deephash.data.datamodule import Batch
from deephash.hamming.codes import pack, sign
from deephash.methods.base import HashBatch, Method
from deephash.metrics.ranking import HammingRanking


class PhaseModule(pl.LightningModule):
    """What the phases share: optimiser, schedule, and what their checkpoints say of themselves.

    Args:
        optimizer: makes one from parameters.
        warmup: share of the steps over which the rate rises to the optimiser's; then it falls
            linearly to zero.
        identity: plain values that tell what this model is; written into its checkpoints.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        warmup: float,
        identity: dict[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.optimizer = optimizer
        self.warmup = warmup
        self.identity = identity

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Named scalar terms; "loss" is minimised."""

    def trained(self) -> nn.Module:
        """What the optimiser changes."""
        return self

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser under a rate that rises and falls linearly, step by step."""
        optimizer = self.optimizer(self.trained().parameters())
        total = int(self.trainer.estimated_stepping_batches)
        rising = max(1, round(self.warmup * total))

        def factor(step: int) -> float:
            return min((step + 1) / rising, (total - step) / max(1, total - rising + 1))

        schedule = LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what this model is."""
        checkpoint["deephash"] = self.identity


class Classifier(PhaseModule):
    """Backbone and classifier under cross-entropy: the pre-training.

    Class indices have a softmax over the classes, multi-hot labels a sigmoid for each.

    Args:
        backbone: images (n, c, h, w) to features (n, num_features).
        num_classes: of the labels.
        multi_label: whether the labels are multi-hot.
        label_smoothing: share of the target spread evenly over the classes, or for multi-hot
            labels over yes and no.
        kwargs: see `PhaseModule`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        multi_label: bool,
        label_smoothing: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.classifier = nn.Linear(backbone.num_features, num_classes)  # type: ignore[arg-type]
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        accuracy = MultilabelAccuracy if multi_label else MulticlassAccuracy
        self.accuracy = accuracy(num_classes, average="micro")
        self.validation_loss = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        """Class logits float32 (n, num_classes) of uint8 images."""
        features = self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier(features)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        labels = batch["labels"]
        logits = distributed.all_gather_with_grad(self(batch["inputs"]), len(labels))
        right = (logits > 0) == labels if self.multi_label else logits.argmax(dim=1) == labels
        return {
            "loss": self._cross_entropy(logits, labels, self.label_smoothing),
            "accuracy": right.float().mean(),
        }

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int) -> None:
        if dataloader_idx == 0:  # the others are trained on
            logits = self(batch["inputs"])
            self.accuracy.update(logits, batch["labels"])
            loss = self._cross_entropy(logits, batch["labels"], smoothing=0)
            self.validation_loss.update(loss, len(logits))

    def _cross_entropy(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        if not self.multi_label:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        target = labels.to(logits) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, target)

    def on_validation_epoch_end(self) -> None:
        """Report accuracy and loss."""
        self.log("val/accuracy", self.accuracy.compute(), logger=False)
        self.log("val/loss", self.validation_loss.compute(), logger=False)
        self.accuracy.reset()
        self.validation_loss.reset()


class HashingModule(PhaseModule):
    """Backbone and hash head under the method's loss.

    Args:
        backbone: images (n, c, h, w) to features (n, num_features).
        method: hash head and loss.
        head_only: train the head alone; the inputs are then features extracted beforehand.
        bits: code length.
        kwargs: see `PhaseModule`.
    """

    def __init__(
        self, backbone: nn.Module, method: Method, *, head_only: bool, bits: int, **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.method = method
        self.head_only = head_only
        self.backbone.requires_grad_(not head_only)  # several processes wait for each gradient
        self.bits = bits
        self.ranking = HammingRanking(bits=bits, ks=(), radius=0)

    def trained(self) -> nn.Module:
        return self.method if self.head_only else self

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits float32 (n, bits) of uint8 images, or of features where `head_only`."""
        features = inputs if self.head_only else self.backbone(inputs)
        with torch.autocast(features.device.type, enabled=False):
            logits = self.method(features)
        if logits.shape != (len(inputs), self.bits):
            raise UserError(
                f"method: {type(self.method).__name__} makes logits of shape {tuple(logits.shape)} "
                f"from {len(inputs)} images, not ({len(inputs)}, {self.bits}) as bits={self.bits} "
                "asks for. Mend its forward."
            )
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        labels = batch["labels"]
        logits = distributed.all_gather_with_grad(self(batch["inputs"]), len(labels))
        with torch.autocast(logits.device.type, enabled=False):
            return self.method.loss(HashBatch(logits, labels))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int) -> None:
        role: Literal["query", "database"] = "query" if dataloader_idx == 0 else "database"
        logits = self(batch["inputs"])
        if logits.isnan().any():
            raise UserError(
                "Logits of validation images are NaN: the last steps broke the weights. "
                "Lower the learning rate (phase.<name>.optimizer.lr) or method.tau."
            )
        self.ranking.update(logits, batch["labels"], role)

    def on_validation_epoch_end(self) -> None:
        """Report the mAP of the validation images; stop where all codes are one."""
        values = self.ranking.compute()
        self.ranking.reset()
        self.log("val/map", values["map"], logger=False, prog_bar=True)
        if values["distinct_codes"] == 1:
            raise UserError(
                "The codes collapsed: all validation and database images have the same one. "
                "Lower the learning rate (phase.<name>.optimizer.lr) or method.tau, or start from "
                "a pre-trained backbone (phases=full)."
            )


class FeatureExtractor(pl.LightningModule):
    """A backbone that predicts: features float32 (n, num_features), on the CPU."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.backbone(batch["inputs"]).cpu()


def encode_features(method: Method, features: Tensor) -> npt.NDArray[np.uint64]:
    """Packed codes, uint64 (n, ceil(bits / 64)), of features (n, num_features)."""
    with torch.inference_mode():
        return pack(sign(method.cpu().eval()(features)))
