"""Deep hashing for image search: train, evaluate and report binary image codes.

>>> import torch
>>> import deephash
>>> words = deephash.pack(deephash.sign(torch.tensor([[0.3, -1.2, 0.5], [0.1, 0.2, -0.4]])))
>>> positions, distances = deephash.knn(words, words, k=2)
>>> distances.tolist()
[[0, 2], [0, 2]]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deephash.core.errors import UserError
    from deephash.hamming import knn
    from deephash.hamming.codes import pack, sign, unpack
    from deephash.metrics.ranking import evaluate_codes

__all__ = ["UserError", "__version__", "evaluate_codes", "knn", "pack", "sign", "unpack"]

_MODULES = {  # imported when used: `import deephash` takes no time
    "UserError": "deephash.core.errors",
    "evaluate_codes": "deephash.metrics.ranking",
    "knn": "deephash.hamming",
    "pack": "deephash.hamming.codes",
    "sign": "deephash.hamming.codes",
    "unpack": "deephash.hamming.codes",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
