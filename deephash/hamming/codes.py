"""Binary codes: the sign of the logits, packed into 64-bit words and unpacked again."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

WORD_BITS = 64


def sign(logits: Tensor) -> Tensor:
    """The code of each row of logits; a logit of exactly zero counts as +1.

    Args:
        logits: real numbers, (n, bits).

    Returns:
        int8 codes of -1 and +1, (n, bits), on the device of the logits.

    Raises:
        ValueError: a logit is NaN.
    """
    if torch.isnan(logits).any():
        row, bit = torch.isnan(logits).nonzero()[0].tolist()
        raise ValueError(
            f"the logit of row {row}, bit {bit} is NaN and has no sign: "
            "look for the step where the loss or the weights diverged"
        )
    return (logits >= 0).to(torch.int8) * 2 - 1  # torch.sign would map 0 to 0, half a bit


def pack(codes: Tensor | npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Pack codes into words: bit k of a code is bit k % 64 of word k // 64, and +1 becomes 1.

    Args:
        codes: -1 and +1, (n, bits), of any number type, on any device.

    Returns:
        uint64 words, (n, ceil(bits / 64)); the padding bits are zero, so distances are kept.

    Raises:
        ValueError: codes are not a matrix with at least one bit, or hold another value.
    """
    values = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"codes have shape {values.shape}: give (n, bits) with bits >= 1")
    positive = values == 1
    invalid = ~(positive | (values == -1))
    if invalid.any():
        row, bit = np.argwhere(invalid)[0]
        raise ValueError(
            f"the code of row {row} has {values[row, bit]} at bit {bit}, not -1 or +1: "
            "take deephash.hamming.codes.sign of the logits first"
        )
    octets = np.packbits(positive, axis=1, bitorder="little")
    padded = np.zeros((len(values), word_count(values.shape[1]) * 8), np.uint8)
    padded[:, : octets.shape[1]] = octets
    return padded.view("<u8").astype(np.uint64, copy=False)


def unpack(words: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.int8]:
    """The codes that `pack` made the words from.

    Args:
        words: uint64 words, (n, ceil(bits / 64)).
        bits: length of a code.

    Returns:
        int8 codes of -1 and +1, (n, bits).

    Raises:
        ValueError: bits is not positive, or words have another width or set padding bits.
    """
    check_words(words, bits, "words")
    octets = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    binary = np.unpackbits(octets, axis=1, count=bits, bitorder="little").view(np.int8)
    return binary * np.int8(2) - np.int8(1)


def check_words(words: npt.NDArray[np.uint64], bits: int, name: str) -> None:
    """Raise ValueError unless `words` are packed codes of this many bits: shape and padding."""
    if words.ndim != 2 or words.shape[1] != word_count(bits):
        raise ValueError(
            f"{name} have shape {tuple(words.shape)}: codes of {bits} bits are packed into "
            f"(n, {word_count(bits)}) words, see deephash.hamming.codes.pack"
        )
    # Distances beyond `bits` would lie beyond the kernels' histograms.
    before = (words.shape[1] - 1) * WORD_BITS
    padding = words[:, -1] & ~np.uint64(2 ** (bits - before) - 1)
    if padding.any():
        row = np.flatnonzero(padding)[0]
        stray = int(padding[row])
        bit = before + (stray & -stray).bit_length() - 1
        raise ValueError(
            f"row {row} of {name} has padding bit {bit} set although codes have {bits} bits: "
            "give the number of bits that the words were packed from"
        )


def word_count(bits: int) -> int:
    """Number of 64-bit words that hold a code.

    Raises:
        ValueError: bits is not positive.
    """
    if bits <= 0:
        raise ValueError(f"bits is {bits}: a code needs at least one bit")
    return -(-bits // WORD_BITS)
