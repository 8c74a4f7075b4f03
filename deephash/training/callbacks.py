"""A phase's curves: collected, kept in its checkpoint, printed, written as CSV."""

import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch import Tensor

from deephash.core.errors import UserError
from deephash.core.io import atomic_write

Row = dict[str, float]  # "step" counts over all phases; the other keys are curves

LOG_EVERY = 10  # steps


class Curves(Callback):
    """Collects a phase's curves and hands them to the loggers.

    The rows are part of the phase's checkpoint: a resumed run, and one that finds a finished
    pre-training, has the curves of what it did not do itself.

    Args:
        phase: prefix of the training curves; validation curves bear "val/".
        first_step: how many steps the phases before took.
    """

    def __init__(self, phase: str, first_step: int) -> None:
        self.phase = phase
        self.first_step = first_step
        self.rows: list[Row] = []
        self.earlier_seconds = 0.0  # of the sittings before this one
        self.found_seconds = 0.0  # of another run, which did this phase
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._images = 0
        self._began = 0.0
        self._sitting_began = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, steps counted from the phase's first, and the seconds they took."""
        rows = [row | {"step": row["step"] - self.first_step} for row in self.rows]
        seconds = self.earlier_seconds + time.perf_counter() - self._sitting_began
        return {"rows": rows, "seconds": seconds, "found_seconds": self.found_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the checkpoint, and the seconds."""
        self.rows = [row | {"step": row["step"] + self.first_step} for row in state_dict["rows"]]
        self.earlier_seconds = state_dict.get("seconds", 0.0)  # 0.2 kept none
        self.found_seconds = state_dict.get("found_seconds", 0.0)

    def of_another_run(self) -> None:
        """The seconds so far were not this run's."""
        self.found_seconds, self.earlier_seconds = self.earlier_seconds, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replay what the checkpoint held."""
        replay(self.rows, rewriting(trainer.loggers))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the throughput."""
        self._images, self._began = 0, time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Average the terms of the loss over some steps.

        Raises:
            UserError: the loss is no longer a finite number.
        """
        self._steps += 1
        self._images += len(batch["labels"])
        for name, value in outputs.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        last_of_epoch = batch_idx + 1 == trainer.num_training_batches
        if self._steps < LOG_EVERY and not last_of_epoch:
            return
        row = {f"{self.phase}/{key}": float(s) / self._steps for key, s in self._sums.items()}
        self._sums, self._steps = {}, 0
        if not math.isfinite(row[f"{self.phase}/loss"]):
            raise UserError(
                f"{self.phase}: the loss turned {row[f'{self.phase}/loss']} by step "
                f"{trainer.global_step}. Lower phase.{self.phase}.optimizer.lr, lengthen its "
                "warmup, or lower method.tau; with trainer.precision=16-mixed, use bf16-mixed."
            )
        row[f"{self.phase}/lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        if last_of_epoch:
            seconds = time.perf_counter() - self._began
            row[f"{self.phase}/images_per_second"] = self._images / seconds
        self._add(trainer, row)
        pl_module.log("loss", row[f"{self.phase}/loss"], prog_bar=True, logger=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take what the module measured on the validation images."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self._add(trainer, values | {"epoch": float(trainer.current_epoch + 1)})

    def _add(self, trainer: pl.Trainer, row: Row) -> None:
        row = {"step": float(self.first_step + trainer.global_step), **row}
        self.rows.append(row)
        replay([row], trainer.loggers)


def replay(rows: Sequence[Row], loggers: Sequence[Logger]) -> None:
    """Hand rows to loggers."""
    for logger in loggers:
        for row in rows:
            values = {key: value for key, value in row.items() if key != "step"}
            logger.log_metrics(values, step=int(row["step"]))
        logger.save()


def rewriting(loggers: Sequence[Logger]) -> list[Logger]:
    """Those that begin a resumed run with nothing, and write their file anew."""
    return [logger for logger in loggers if isinstance(logger, CsvLogger)]


class EpochPrinter(Callback):
    """One line an epoch, for output that is no terminal.

    Args:
        phase: its name.
        curves: of the same phase.
    """

    def __init__(self, phase: str, curves: Curves) -> None:
        self.phase = phase
        self.curves = curves

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the last values of loss and validation."""
        name = f"{self.phase}/loss"
        values = {"loss": next(row[name] for row in reversed(self.curves.rows) if name in row)}
        values |= {k: float(v) for k, v in trainer.callback_metrics.items() if "val/" in k}
        shown = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
        seconds = time.perf_counter() - self._began
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{self.phase} {epoch}  {shown}  {seconds:.1f} s", flush=True)


class CsvLogger(Logger):
    """All curves in one CSV file: a row a step, a column a curve."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[Row] = []

    @property
    def name(self) -> str:
        """Of the logger, for Lightning."""
        return "csv"

    @property
    def version(self) -> str:
        """None is kept: a run has one file."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Not here: config.yaml holds them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep a row until the next `save`."""
        self.rows.append({"step": float(step or 0), **metrics})

    def save(self) -> None:
        """Write the file anew."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_write(self.path) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
