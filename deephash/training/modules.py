"""The LightningModules: a backbone under a classifier, a backbone under a hash head."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MultilabelAccuracy

from deephash.core.distributed import all_gather_with_grad
from deephash.core.errors import UserError
from deephash.core.shapes import check_shape, describe
from deephash.data.datamodule import Batch
from deephash.methods.base import HashBatch, Method
from deephash.metrics.hamming_ranking import HammingRanking
from deephash.training.optimization import Schedule


class PhaseModule(pl.LightningModule):
    """What the phases share: optimizer, schedule, and the identity that their checkpoints bear.

    Args:
        backbone: uint8 images (n, c, h, w) to features (n, num_features).
        make_optimizer: makes the optimizer of parameters given by name.
        schedule: factor of the rate by step and number of steps.
        identity: plain values that tell which model this is; written into the checkpoints.
        cache_key: of what determines this training, where runs may share it. A training that is
            continued keeps the key that it began with.
        trained_from: digest of the weights that the phase before left; empty in the first phase.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        make_optimizer: Callable[[Mapping[str, nn.Parameter]], Optimizer],
        schedule: Schedule,
        identity: dict[str, Any],
        cache_key: str = "",
        trained_from: str = "",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.make_optimizer = make_optimizer
        self.schedule = schedule
        self.identity = identity
        self.cache_key = cache_key
        self.trained_from = trained_from

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Named scalar terms; "loss" is minimised."""

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the optimizer changes, by name."""
        return dict(self.named_parameters())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer and its schedule, which advances at every step."""
        optimizer = self.make_optimizer(self.trained_parameters())
        total_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, total_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the identity of the model, and what determined it."""
        checkpoint["deephash"] = self.identity
        checkpoint["cache_key"] = self.cache_key
        checkpoint["trained_from"] = self.trained_from

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the key that the training began with."""
        self.cache_key = checkpoint.get("cache_key", "")  # 0.2 kept none


class Classifier(PhaseModule):
    """Backbone and linear classifier under cross-entropy: the pre-training.

    Class indices get a softmax over the classes, multi-hot labels a sigmoid per class.

    Args:
        backbone: uint8 images (n, c, h, w) to features (n, num_features).
        num_classes: of the labels.
        multi_label: whether the labels are multi-hot.
        label_smoothing: part of the target that is spread evenly over the classes, or for
            multi-hot labels over yes and no.
        kwargs: of `PhaseModule`.
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
        """Class logits, float32 (n, num_classes), of uint8 images (n, c, h, w)."""
        features = self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier(features)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        labels = batch["labels"]
        logits = all_gather_with_grad(self(batch["images"]), len(labels))
        correct = (logits > 0) == labels if self.multi_label else logits.argmax(dim=1) == labels
        return {
            "loss": self._cross_entropy(logits, labels, self.label_smoothing),
            "accuracy": correct.float().mean(),
        }

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int) -> None:
        if dataloader_idx == 0:  # the other one serves training images
            logits = self(batch["images"])
            self.accuracy.update(logits, batch["labels"])
            loss = self._cross_entropy(logits, batch["labels"], smoothing=0)
            self.validation_loss.update(loss, len(logits))

    def _cross_entropy(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        if not self.multi_label:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        target = labels.to(logits) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, target)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and loss of the validation images."""
        self.log("val/accuracy", self.accuracy.compute(), logger=False)
        self.log("val/loss", self.validation_loss.compute(), logger=False)
        self.accuracy.reset()
        self.validation_loss.reset()


class HashingModule(PhaseModule):
    """Backbone and hash head under the method's loss.

    Args:
        backbone: uint8 images (n, c, h, w) to features (n, num_features).
        method: hash head and loss.
        head_only: train the head alone; batches then hold features extracted beforehand.
        bits: code length.
        kwargs: of `PhaseModule`.
    """

    def __init__(
        self, backbone: nn.Module, method: Method, *, head_only: bool, bits: int, **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.method = method
        self.head_only = head_only
        self.backbone.requires_grad_(not head_only)  # DDP waits for the gradient of each parameter
        self.bits = bits
        self.ranking = HammingRanking(bits=bits, ks=(), radius=0)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Those of the head, and of the backbone unless `head_only`."""
        named = super().trained_parameters().items()
        return {name: p for name, p in named if not self.head_only or name.startswith("method.")}

    def forward(self, images: Tensor) -> Tensor:
        """Hash logits, float32 (n, bits), of uint8 images (n, c, h, w), or of features
        (n, num_features) where `head_only`.

        Raises:
            UserError: the method's logits are no tensor of this shape.
        """
        features = images if self.head_only else self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):
            logits = self.method(features)
        place = f"method: {type(self.method).__name__}.forward"
        check_shape(place, logits, (len(images), self.bits), "(images, bits)")
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The terms of the method's loss.

        Raises:
            UserError: they are no dictionary of scalars, with a loss that can be minimised.
        """
        labels = batch["labels"]
        logits = all_gather_with_grad(self(batch["images"]), len(labels))
        with torch.autocast(logits.device.type, enabled=False):
            terms = self.method.loss(HashBatch(logits, labels))
        _check_terms(f"method: {type(self.method).__name__}.loss", terms)
        return terms

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int) -> None:
        role: Literal["query", "database"] = "query" if dataloader_idx == 0 else "database"
        logits = self(batch["images"])
        if logits.isnan().any():
            raise UserError(
                "The logits of validation images are NaN: the last steps broke the weights. "
                f"Lower {self._place}.optimizer.lr, or change the settings of the method."
            )
        self.ranking.update(logits, batch["labels"], role)

    @property
    def _place(self) -> str:
        """Of the phase's settings in the configuration."""
        return f"training.{self.identity.get('phase', '<phase>')}"

    def on_validation_epoch_end(self) -> None:
        """Log the mAP of the validation images.

        Raises:
            UserError: all images have the same code.
        """
        values = self.ranking.compute()
        self.ranking.reset()
        self.log("val/map", values["map"], logger=False, prog_bar=True)
        if values["distinct_codes"] == 1:
            raise UserError(
                "The codes collapsed: all validation and database images have the same code. "
                f"Lower {self._place}.optimizer.lr, change the settings of the method, or start "
                "from a pre-trained backbone (phases=full), if this one is not."
            )


def _check_terms(place: str, terms: Any) -> None:
    """Check what a method's loss returns.

    Raises:
        UserError: it is not a dictionary of scalar tensors, with a loss that can be minimised.
    """
    wanted = "it must return a dictionary of scalar tensors, one of them 'loss'."
    if not isinstance(terms, Mapping):
        raise UserError(f"{place} returns {describe(terms)}; {wanted}")
    for name, value in terms.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise UserError(f"{place} returns {describe(value)} as '{name}'; {wanted}")
    if "loss" not in terms:
        raise UserError(f"{place} returns the terms {list(terms)}; {wanted}")
    if torch.is_grad_enabled() and not terms["loss"].requires_grad:
        raise UserError(
            f"{place}: 'loss' has no gradient. Compute it from batch.logits, without detach(), "
            "without rounding, and not in integers."
        )


class FeatureExtractor(pl.LightningModule):
    """Predicts the features of images, float32 (n, num_features), on the CPU."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.backbone(batch["images"]).cpu()
