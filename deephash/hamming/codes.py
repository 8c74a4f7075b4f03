"""Binary codes: the signs of logits, packed into 64-bit words and unpacked again."""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]

WORD_BITS = 64
MAX_INSPECTED = 1000  # rows that tell whether codes are packed
_FROM_BINARY = "for codes of 0 and 1, give codes.int() * 2 - 1"


def sign(logits: Tensor) -> Tensor:
    """Binarize logits; a logit of exactly zero becomes +1.

    Args:
        logits: real numbers, (n, bits).

    Returns:
        int8 codes of -1 and +1, (n, bits), on the device of the logits.

    Raises:
        ValueError: a logit is NaN, or all values are 0 or 1: codes, whose signs would all be +1.

    Example:
        >>> sign(torch.tensor([[-0.5, 0.0, 2.0]]))
        tensor([[-1,  1,  1]], dtype=torch.int8)
    """
    if torch.isnan(logits).any():
        row, bit = torch.isnan(logits).nonzero()[0].tolist()
        raise ValueError(
            f"the logit of row {row}, bit {bit} is NaN and has no sign: "
            "find the step where the loss or the weights diverged"
        )
    if not logits.dtype.is_signed:
        raise ValueError(
            f"logits have type {logits.dtype}, which is never negative: {_FROM_BINARY}"
        )
    if ((logits == 0) | (logits == 1)).all() and logits.any() and not logits.all():
        raise ValueError(f"all logits are 0 or 1, as in codes of 0 and 1: {_FROM_BINARY}")
    return (logits >= 0).to(torch.int8) * 2 - 1  # torch.sign would map 0 to 0, which is no code


def pack(codes: Tensor | Array) -> npt.NDArray[np.uint64]:
    """Pack codes into words: bit k of a code becomes bit k % 64 of word k // 64, and +1 becomes 1.

    Args:
        codes: -1 and +1, (n, bits), of any number type, on any device.

    Returns:
        packed codes, uint64 (n, ceil(bits / 64)). The padding bits are zero, so that Hamming
        distances are preserved.

    Raises:
        ValueError: codes are not a matrix with at least one bit, or contain another value.

    Example:
        >>> pack(torch.tensor([[1, -1, 1], [-1, -1, -1]]))
        array([[5],
               [0]], dtype=uint64)
    """
    values = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"codes have shape {values.shape}: give (n, bits) with bits >= 1")
    positive = values == 1
    invalid = ~(positive | (values == -1))
    if invalid.any():
        row, bit = np.argwhere(invalid)[0]
        is_binary = (positive | (values == 0)).all()
        remedy = _FROM_BINARY if is_binary else "apply deephash.hamming.codes.sign to logits first"
        raise ValueError(
            f"the code of row {row} has {values[row, bit]} at bit {bit}, not -1 or +1: {remedy}"
        )
    return pack_nonzero(positive)


def pack_nonzero(values: Array) -> npt.NDArray[np.uint64]:
    """Pack a matrix of integers or booleans into words, as `pack` does; any nonzero becomes 1.

    Example:
        >>> pack_nonzero(np.array([[True, False, True]]))
        array([[5]], dtype=uint64)
    """
    octets = np.packbits(values, axis=1, bitorder="little")
    padded = np.zeros((len(values), word_count(values.shape[1]) * 8), np.uint8)
    padded[:, : octets.shape[1]] = octets
    return padded.view("<u8").astype(np.uint64, copy=False)


def unpack(words: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.int8]:
    """Unpack codes that were packed by `pack`.

    Args:
        words: packed codes, uint64 (n, ceil(bits / 64)).
        bits: length of a code.

    Returns:
        int8 codes of -1 and +1, (n, bits).

    Raises:
        ValueError: bits is not positive, words have another width, or a padding bit is set.

    Example:
        >>> unpack(np.array([[5], [0]], np.uint64), bits=3)
        array([[ 1, -1,  1],
               [-1, -1, -1]], dtype=int8)
    """
    check_words(words, bits, "words")
    octets = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    binary = np.unpackbits(octets, axis=1, count=bits, bitorder="little").view(np.int8)
    return binary * np.int8(2) - np.int8(1)


def check_words(words: npt.NDArray[np.uint64], bits: int, name: str) -> None:
    """Check that `words` are packed codes of `bits` bits: their shape and their padding bits.

    Args:
        words: packed codes, uint64 (n, ceil(bits / 64)).
        bits: length of a code.
        name: what to call the words in an error message.

    Raises:
        ValueError: bits is not positive, words have another width, or a padding bit is set.
    """
    if words.ndim != 2 or words.shape[1] != word_count(bits):
        raise ValueError(
            f"{name} have shape {tuple(words.shape)}: codes of {bits} bits are packed into "
            f"(n, {word_count(bits)}) words, see deephash.hamming.codes.pack"
        )
    # Padding bits would give distances above `bits`, outside of the kernels' histograms.
    first_bit = (words.shape[1] - 1) * WORD_BITS
    padding = words[:, -1] & ~np.uint64(2 ** (bits - first_bit) - 1)
    if padding.any():
        row = np.flatnonzero(padding)[0]
        word = int(padding[row])
        bit = first_bit + (word & -word).bit_length() - 1
        raise ValueError(
            f"row {row} of {name} has padding bit {bit} set although codes have {bits} bits: "
            "give the number of bits that the words were packed from"
        )


def word_count(bits: int) -> int:
    """Number of 64-bit words that hold a code of `bits` bits.

    Raises:
        ValueError: bits is not a positive integer.
    """
    if as_int(bits, "bits") <= 0:
        raise ValueError(f"bits is {bits}: a code needs at least one bit")
    return -(-bits // WORD_BITS)


def as_int(value: Any, name: str) -> int:
    """Convert an integer of any kind, numpy's included, to an int.

    Args:
        value: the integer.
        name: what to call it in an error message.

    Raises:
        ValueError: the value is not an integer.

    Example:
        >>> as_int(np.uint8(48), "bits")
        48
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} is {value!r}: give an integer") from error


def as_words(values: Array | Tensor) -> npt.NDArray[np.uint64]:
    """Convert packed codes, uint64 or int64, to a contiguous uint64 array.

    Raises:
        ValueError: the values have another type, or are codes of -1 and +1 that are not packed.
    """
    array = as_array(values)
    if array.dtype not in (np.uint64, np.int64):
        raise ValueError(
            f"words have type {array.dtype}: give uint64 from deephash.hamming.codes.pack"
        )
    start = array[:MAX_INSPECTED].view(np.int64)
    if start.ndim == 2 and start.shape[1] > 1 and np.array_equal(np.unique(start), [-1, 1]):
        raise ValueError(
            "words are all -1 or +1, as in codes that are not packed: "
            "pack them by deephash.hamming.codes.pack"
        )
    return array.view(np.uint64)


def as_array(values: Array | Tensor) -> Array:
    """Convert to a contiguous array; a memory-mapped array is not read into memory."""
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    return np.ascontiguousarray(array)
