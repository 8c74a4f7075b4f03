"""What a run shows on the terminal."""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deephash.experiment.settings import Settings

DESCRIPTIONS = {
    "map": "mAP, expected over tie orders",
    "map_best": "mAP, best tie order",
    "map_worst": "mAP, worst tie order",
    "map_database_order": "mAP, ties in database order",
}
PLACES = {
    "metrics": "metrics.json",
    "codes": "codes/query.npz, database.npz",
    "plots": "plots/",
    "checkpoints": "checkpoints/",
    "settings": "config.yaml",
}
IGNORED_WARNINGS = (
    ".*does not have many workers.*",  # batches come from memory: workers would only copy them
    ".*The number of training batches.*",  # an epoch may be shorter than Lightning's log interval
    ".*Checkpoint directory.*exists and is not empty.*",
    ".*sync_dist=True.*",  # every process measures on the images of all
    ".*LeafSpec.*",
)


class StdoutHandler(logging.Handler):
    """Prints messages as plain lines; characters that stdout cannot encode are escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        encoding = sys.stdout.encoding or "utf-8"
        message = record.getMessage().encode(encoding, errors="backslashreplace").decode(encoding)
        sys.stdout.write(f"{message}\n")  # in one piece, as several runs may share the terminal
        sys.stdout.flush()


@contextmanager
def log_to_stdout() -> Iterator[None]:
    """Show what this package logs, from INFO up, on stdout."""
    package = logging.getLogger(__name__.partition(".")[0])
    handler, level, propagate = StdoutHandler(), package.level, package.propagate
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False  # Hydra's root handler would print each line again
    torch_logger = logging.getLogger("torch")
    if torch_logger.level == logging.NOTSET:  # torch sets it at the end of its import, and logs at
        torch_logger.setLevel(logging.WARNING)  # exit, also if Ctrl-C has stopped the import
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        package.propagate = propagate


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence Lightning's notes on devices, workers and tips: a run says what matters itself."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    # The report of trainer.profiler is an INFO of Lightning's.
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs what it also raises
    with warnings.catch_warnings():
        for message in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def print_results(
    run_dir: Path,
    settings: Settings,
    record: Mapping[str, Any],
    metrics: Mapping[str, float],
    seconds: Mapping[str, float],
) -> None:
    """Print the final metrics, and where everything lies."""
    from rich.console import Console
    from rich.table import Table

    sizes = record["images"]
    table = Table(
        title=f"{record['dataset']}, {settings.bits} bits, {sizes['query']:,} queries in a "
        f"database of {sizes['database']:,}",
        title_justify="left",
    )
    table.add_column("test")
    table.add_column("value", justify="right")
    for key, value in metrics.items():
        is_count = float(value).is_integer() and value > 1
        table.add_row(
            DESCRIPTIONS.get(key, key.replace("_", " ")),
            f"{value:,.0f}" if is_count else f"{value:.4f}",
        )
    for phase, duration in seconds.items():
        table.add_row(f"seconds, {phase}", f"{duration:.1f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for name, place in PLACES.items():
        console.print(f"{name:12} {run_dir}/{place}")
