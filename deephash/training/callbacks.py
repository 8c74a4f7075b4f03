"""Lightning callbacks: curves, progress lines and seeds of a phase."""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.optim import Optimizer

from deephash.core.errors import UserError
from deephash.core.messages import MILESTONE
from deephash.core.seeds import derived_seed

log = logging.getLogger(__name__)

Row = dict[str, float]  # "step" and "epoch" count over all phases; the other keys are curves

LOG_EVERY = 10  # steps


class CurveRecorder(Callback):
    """Records the curves of a phase and passes them to the loggers.

    The rows are part of the phase's checkpoint: a resumed run, and one that finds a finished
    pre-training, has the curves of what it did not train itself.

    Args:
        phase: prefix of the training curves; validation curves begin with "val/".
        first_step: number of steps of the phases before.
        first_epoch: number of epochs of the phases before.
    """

    def __init__(self, phase: str, first_step: int, first_epoch: int = 0) -> None:
        self.phase = phase
        self.first_step = first_step
        self.first_epoch = first_epoch
        self.rows: list[Row] = []
        self.earlier_seconds = 0.0  # of the sessions before this one
        self.cached_seconds = 0.0  # of another run, which trained this phase
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._rate = 0.0
        self._images = 0
        self._epoch_start = 0.0
        self._session_start = time.perf_counter()

    @property
    def state_key(self) -> str:
        """Of its state in checkpoints, whatever the class is called."""
        return "Curves"

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, counted from the start of the phase, and their seconds."""
        rows = [_shift(row, -self.first_step, -self.first_epoch) for row in self.rows]
        seconds = self.earlier_seconds + time.perf_counter() - self._session_start
        return {"rows": rows, "seconds": seconds, "found_seconds": self.cached_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows and seconds of a checkpoint."""
        self.rows = [_shift(row, self.first_step, self.first_epoch) for row in state_dict["rows"]]
        self.earlier_seconds = state_dict.get("seconds", 0.0)  # early 0.2 kept none
        self.cached_seconds = state_dict.get("found_seconds", 0.0)

    def mark_as_cached(self) -> None:
        """Count the seconds so far as those of another run."""
        self.cached_seconds, self.earlier_seconds = self.earlier_seconds, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replay the rows of the checkpoint to loggers that start empty."""
        replay(self.rows, loggers_starting_empty(trainer.loggers))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the throughput."""
        self._images, self._epoch_start = 0, time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Keep the rate of this step; the schedule advances before the batch ends."""
        self._rate = optimizer.param_groups[0]["lr"]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Average the terms of the loss over `LOG_EVERY` steps, or up to the end of the epoch.

        Raises:
            UserError: the loss is not a finite number.
        """
        self._steps += 1
        self._images += len(batch["labels"])
        for name, value in outputs.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        is_last_of_epoch = batch_idx + 1 == trainer.num_training_batches
        if self._steps < LOG_EVERY and not is_last_of_epoch:
            return
        row = {f"{self.phase}/{key}": float(s) / self._steps for key, s in self._sums.items()}
        self._sums, self._steps = {}, 0
        if not math.isfinite(row[f"{self.phase}/loss"]):
            raise UserError(
                f"{self.phase}: the loss became {row[f'{self.phase}/loss']} by step "
                f"{trainer.global_step}. Lower training.{self.phase}.optimizer.lr, lengthen "
                f"training.{self.phase}.scheduler.warmup, or lower method.tau; in place of "
                "trainer.precision=16-mixed use bf16-mixed."
            )
        row[f"{self.phase}/lr"] = self._rate
        if is_last_of_epoch:
            seconds = time.perf_counter() - self._epoch_start
            row[f"{self.phase}/images_per_second"] = self._images / seconds
        self._add(trainer, row)
        pl_module.log("loss", row[f"{self.phase}/loss"], prog_bar=True, logger=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record what the module measured on the validation images."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        epoch = self.first_epoch + trainer.current_epoch + 1
        self._add(trainer, values | {"epoch": float(epoch)})

    def _add(self, trainer: pl.Trainer, row: Row) -> None:
        row = {"step": float(self.first_step + trainer.global_step), **row}
        self.rows.append(row)
        replay([row], trainer.loggers)


def _shift(row: Row, steps: int, epochs: int) -> Row:
    offsets = {"step": steps, "epoch": epochs}
    return {key: value + offsets.get(key, 0) for key, value in row.items()}


def replay(rows: Sequence[Row], loggers: Sequence[Logger]) -> None:
    """Pass rows to loggers."""
    for logger in loggers:
        for row in rows:
            values = {key: value for key, value in row.items() if key != "step"}
            logger.log_metrics(values, step=int(row["step"]))
        logger.save()


def loggers_starting_empty(loggers: Sequence[Logger]) -> list[Logger]:
    """Those that have none of the curves of a resumed run yet (attribute `starts_empty`)."""
    return [logger for logger in loggers if getattr(logger, "starts_empty", False)]


class EpochPrinter(Callback):
    """Logs one line per epoch, for output that is not a terminal; the last is a milestone.

    Args:
        phase: its name.
        curves: of the same phase.
    """

    def __init__(self, phase: str, curves: CurveRecorder) -> None:
        self.phase = phase
        self.curves = curves

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._epoch_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the last loss and the validation metrics."""
        name = f"{self.phase}/loss"
        values = {"loss": next(row[name] for row in reversed(self.curves.rows) if name in row)}
        values |= {k: float(v) for k, v in trainer.callback_metrics.items() if "val/" in k}
        metrics = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
        seconds = time.perf_counter() - self._epoch_start
        epoch = trainer.current_epoch + 1
        extra = MILESTONE if epoch == trainer.max_epochs else None
        line = "%s %d/%d  %s  %.1f s"
        log.info(line, self.phase, epoch, trainer.max_epochs, metrics, seconds, extra=extra)


class EpochSeeder(Callback):
    """Seeds the global generators at each epoch, so that a resumed epoch draws the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed by the phase's seed and the epoch."""
        pl.seed_everything(derived_seed(self.seed, trainer.current_epoch), verbose=False)
