"""What a run shows on the terminal, and of a sweep each of its runs."""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deephash.core.ranks import is_rank_zero
from deephash.experiment.settings import Settings

LOG = "log.txt"  # in the folder of a run of a sweep
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
    "Glyph .* missing from font.*",  # of a class name in a plot
)

logger = logging.getLogger(__name__)


class StdoutHandler(logging.Handler):
    """Prints messages as plain lines; characters that stdout cannot encode are escaped.

    Attributes:
        run_name: of a run of a sweep; then only milestones and warnings are printed, each line
            below this name.
    """

    run_name = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        message = record.getMessage()
        if self.run_name:
            if record.levelno < logging.WARNING and not hasattr(record, "milestone"):
                return
            message = "\n".join(f"{self.run_name}: {line}" for line in message.splitlines())
        encoding = sys.stdout.encoding or "utf-8"
        message = message.encode(encoding, errors="backslashreplace").decode(encoding)
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
def log_run_of_many(folder: Path) -> Iterator[None]:
    """Show the milestones of a run of a sweep on stdout, and write all messages to `log.txt`."""
    package = logging.getLogger(__name__.partition(".")[0])
    shown = [handler for handler in package.handlers if isinstance(handler, StdoutHandler)]
    added: list[logging.Handler] = []
    if is_rank_zero():
        folder.mkdir(parents=True, exist_ok=True)
        added = [logging.FileHandler(folder / LOG, encoding="utf-8")]
        added[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        # A full disk is told where it matters.
        added[0].handleError = lambda record: None  # type: ignore[method-assign]
        package.addHandler(added[0])
    for handler in shown:
        handler.run_name = folder.name
    try:
        yield
    finally:
        for handler in shown:
            handler.run_name = ""
        for file in added:
            package.removeHandler(file)
            file.close()


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


def log_results(
    run_dir: Path,
    settings: Settings,
    record: Mapping[str, Any],
    metrics: Mapping[str, float],
    seconds: Mapping[str, float],
) -> None:
    """Log the metrics that matter most, and where everything lies."""
    sizes = record["images"]
    rows = _result_rows(settings.evaluation.radius, sizes["database"], metrics, seconds)
    width = max(map(len, rows))
    lines = [describe_run(record), *(f"{name:{width}}  {row}" for name, row in rows.items())]
    lines += [f"{name:12} {run_dir}/{place}" for name, place in PLACES.items()]
    logger.info("%s", "\n".join(lines))


def describe_run(record: Mapping[str, Any], *, bits: bool = True) -> str:
    """Method, data set, code length and sizes of a run in words, as a title."""
    sizes, method = record["images"], record["method"]["_target_"].rpartition(".")[2]
    length = f"{record['bits']} bits, " if bits else ""
    return (
        f"{method} on {record['dataset']}, {length}{sizes['query']:,} queries in a database of "
        f"{sizes['database']:,}"
    )


def _result_rows(
    radius: int,
    database_size: int,
    metrics: Mapping[str, float],
    seconds: Mapping[str, float],
) -> dict[str, str]:
    """Eight rows; the others are in metrics.json."""
    low, high = metrics["map_worst"], metrics["map_best"]
    order = f"({low:.4f} to {high:.4f} by order of ties)"
    rows = {"mean average precision (mAP)": f"{metrics['map']:.4f}  {order}"}
    ranks = [int(name.removeprefix("map@")) for name in metrics if name.startswith("map@")]
    for k in sorted(ranks)[-1:]:
        rows[f"mAP of the first {k:,}"] = f"{metrics[f'map@{k}']:.4f}"
        rows[f"precision of the first {k:,}"] = f"{metrics[f'precision@{k}']:.4f}"
    return rows | {
        f"precision in Hamming radius {radius}": f"{metrics[f'precision_radius{radius}']:.4f}",
        f"recall in Hamming radius {radius}": f"{metrics[f'recall_radius{radius}']:.4f}",
        f"queries with no image in radius {radius}": (
            f"{metrics[f'empty_balls_radius{radius}']:.2%}"
        ),
        "distinct codes in the database": (
            f"{metrics['distinct_codes']:,.0f} of {database_size:,} images"
        ),
        "seconds": f"{seconds['total']:.1f}",
    }
