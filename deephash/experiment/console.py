"""What a run shows on the terminal beside its progress."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deephash.experiment.settings import Settings

SHOWN = {
    "map": "mAP, expected over tie orders",
    "map_best": "mAP, best tie order",
    "map_worst": "mAP, worst tie order",
    "map_database_order": "mAP, ties in database order",
}


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence Lightning's notes on devices, workers and tips: a run says what matters itself."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs what it also raises
    with warnings.catch_warnings():
        # Batches come from memory: workers would only copy them.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # A short epoch has fewer steps than Lightning's logging interval; curves are our own.
        warnings.filterwarnings("ignore", ".*The number of training batches.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory.*exists and is not empty.*")
        # Every process measures on the images of all.
        warnings.filterwarnings("ignore", ".*sync_dist=True.*")
        # Between Lightning's own parts, or with torch.
        warnings.filterwarnings("ignore", ".*not supported by the model summary.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def results_table(
    folder: Path,
    settings: Settings,
    record: Mapping[str, Any],
    results: Mapping[str, float],
    seconds: Mapping[str, float],
) -> None:
    """Print the final figures and where everything lies."""
    sizes = record["images"]
    table = Table(
        title=f"{record['dataset']}, {settings.bits} bits, {sizes['query']:,} queries in a "
        f"database of {sizes['database']:,}",
        title_justify="left",
    )
    table.add_column("test")
    table.add_column("value", justify="right")
    for key, value in results.items():
        shown = f"{value:,.0f}" if float(value).is_integer() and value > 1 else f"{value:.4f}"
        table.add_row(SHOWN.get(key, key.replace("_", " ")), shown)
    for phase, taken in seconds.items():
        table.add_row(f"seconds, {phase}", f"{taken:.1f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for what, where in {
        "figures": "metrics.json",
        "codes": "codes/query.npz, database.npz",
        "pictures": "pictures/",
        "checkpoints": "checkpoints/",
        "settings": "config.yaml",
    }.items():
        console.print(f"{what:12} {folder}/{where}")
