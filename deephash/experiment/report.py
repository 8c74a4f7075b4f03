"""What a finished run leaves: codes, metrics and plots."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger

from deephash.core.io import atomic_write, write_json
from deephash.experiment import console, loggers, plots
from deephash.experiment.evaluate import Codes, evaluate_parts
from deephash.experiment.run_dir import METRICS
from deephash.experiment.run_loggers import warn_if_it_fails
from deephash.experiment.settings import Settings
from deephash.training.state import History, TrainingData

logger = logging.getLogger(__name__)


def write_codes(folder: Path, codes: dict[str, Codes], bits: int, classes: Sequence[str]) -> None:
    """Write `query.npz` and `database.npz`: `ids`, `words`, `bits`, `labels` and `classes`."""
    names = np.array(classes, dtype=str)
    for part, part_codes in codes.items():
        with atomic_write(folder / f"{part}.npz") as path:
            np.savez(path, bits=bits, classes=names, **vars(part_codes))


def write_report(
    settings: Settings,
    run_dir: Path,
    data: TrainingData,
    codes: dict[str, Codes],
    history: History,
    record: dict[str, Any],
    run_loggers: Sequence[Logger],
    *,
    run_start: float,
    evaluation_start: float,
) -> None:
    """Evaluate the codes, and write, log and print everything that a run leaves.

    Args:
        settings: of the run.
        run_dir: of the run.
        data: images and split.
        codes: of queries and database.
        history: of the training.
        record: of the run, see `make_record`.
        run_loggers: of the run.
        run_start: `time.perf_counter()` when the run started.
        evaluation_start: `time.perf_counter()` when the encoding started.
    """
    write_codes(run_dir / "codes", codes, settings.bits, data.image_set.classes)
    ranking, metrics = evaluate_parts(codes, settings.bits, settings.evaluation)
    now = time.perf_counter()
    seconds = {
        **history.seconds,
        "evaluate": now - evaluation_start,
        "total": history.earlier_seconds + now - run_start,
    }
    if history.cached_seconds:
        seconds["pretrain_cached"] = history.cached_seconds  # in other runs, not in the total
    validation = {k: v for k, v in history.rows[-1].items() if k.startswith("val/")}
    plot_paths: dict[str, Path] = {}
    try:
        plot_paths = plots.draw(
            run_dir / "plots",
            title=console.describe_run(record),
            objectives={name: p.objective for name, p in settings.ordered_phases().items()},
            rows=history.rows,
            ranking=ranking,
            bits=settings.bits,
            image_set=data.image_set,
            split=data.split,
            query_words=codes["query"].words,
            database_words=codes["database"].words,
        )
    except OSError:  # such as a full disk: once it is mended, the run is resumed
        raise
    except Exception as error:  # the metrics are worth more than the plots
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning("the plots cannot be drawn (%s). The run goes on without them.", reason)
    results = {"test": metrics, "validation": validation, "seconds": seconds, "record": record}
    write_json(run_dir / METRICS, results)  # a run that has it is finished
    for run_logger in run_loggers:
        with warn_if_it_fails(run_logger):
            loggers.log_results([run_logger], int(history.rows[-1]["step"]), metrics, plot_paths)
    console.log_results(run_dir, settings, record, metrics, seconds)
