"""Packed codes from features."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deephash.hamming.codes import pack, sign
from deephash.methods.base import Method


def encode_features(method: Method, features: Tensor) -> npt.NDArray[np.uint64]:
    """The packed codes of features, computed on the CPU.

    Args:
        method: its hash head makes the logits.
        features: float32 (n, num_features).

    Returns:
        uint64 words (n, ceil(bits / 64)), see `deephash.hamming.codes.pack`.
    """
    with torch.inference_mode():
        return pack(sign(method.cpu().eval()(features)))
