"""The progress of a phase on a terminal."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from deephash.training.callbacks import LOG_EVERY

SHOWN = ("val/map", "val/accuracy")  # the first that the phase measures


class PhaseBar(ProgressBar):
    """One line for the epoch at work: batches, time left, loss, and the last validation metric.

    It fits 80 columns, and stays when the phase has ended.

    Args:
        phase: its name.
    """

    def __init__(self, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=_one_line()),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[metrics]}", markup=False, table_column=_one_line()),
        )
        self._task = self._progress.add_task(phase, metrics="")

    def disable(self) -> None:
        """Show nothing, as in all processes but the first."""
        self._progress.disable = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the line of an epoch."""
        epoch = f"{self.phase} {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._progress.reset(self._task, total=trainer.num_training_batches, description=epoch)
        self._progress.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance; the metrics change as often as the curves have a row."""
        done = batch_idx + 1
        if done % LOG_EVERY == 0 or done == trainer.num_training_batches:
            self._progress.update(self._task, completed=done, metrics=_describe_metrics(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what was measured on the validation images."""
        self._progress.update(self._task, metrics=_describe_metrics(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the last line."""
        self._progress.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the last line, and give back the cursor."""
        self._progress.stop()


def _one_line() -> Column:
    return Column(no_wrap=True, overflow="ellipsis")


def _describe_metrics(trainer: pl.Trainer) -> str:
    values = trainer.callback_metrics
    names = ["loss", *[name for name in SHOWN if name in values][:1]]
    return "  ".join(f"{name} {float(values[name]):.3f}" for name in names if name in values)
