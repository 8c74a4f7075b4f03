"""The loggers of a run: one that fails is told once, and the run goes on without it."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.loggers import Logger

from deephash.core.errors import UserError
from deephash.core.instantiate import Node, build_instance

log = logging.getLogger(__name__)

METHODS = (  # that Lightning and the callbacks call during a training
    "log_metrics",
    "log_hyperparams",
    "log_graph",
    "after_save_checkpoint",
    "save",
    "finalize",
)


def open_logger(key: str, node: Node, *args: Any) -> Logger | None:
    """A logger that does not raise from then on; None where it fails at the start.

    Args:
        key: of the logger below `logger`.
        node: `_target_` and settings.
        args: positional arguments of the target.

    Raises:
        UserError: its settings are wrong.
    """
    try:
        logger = build_instance(f"logger.{key}", node, Logger, *args)
        getattr(logger, "experiment", None)  # some open their files by this
    except UserError:
        raise
    except Exception as error:
        _warn(key, error)
        return None
    logger.key = key
    for name in METHODS:
        setattr(logger, name, _tolerate(logger, getattr(logger, name)))
    return logger


def _tolerate(logger: Logger, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with warn_if_it_fails(logger):
            return None if has_failed(logger) else method(*args, **kwargs)

    return call


@contextmanager
def warn_if_it_fails(logger: Logger) -> Iterator[None]:
    """Warn of the first error of a logger, in place of raising it; later ones are silent."""
    try:
        yield
    except Exception as error:
        if not has_failed(logger):
            _warn(getattr(logger, "key", type(logger).__name__), error)
        logger.has_failed = True  # type: ignore[attr-defined]


def has_failed(logger: Logger) -> bool:
    """Whether a logger has raised an error."""
    return getattr(logger, "has_failed", False)


def _warn(key: str, error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    log.warning(
        "logger=%s failed (%s). The run goes on without it; its own files have all figures.",
        key,
        reason,
    )
