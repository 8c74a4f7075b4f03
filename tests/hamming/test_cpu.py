"""How the numba kernels run: their threads, and their vector instructions."""

import subprocess
import sys

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features
from numba import njit

from deephash.hamming import cpu

ONE, MANY = np.zeros(1, np.uint64), np.zeros(8, np.uint64)


def test_torch_and_numba_keep_their_numbers_of_threads():
    # In a new process, because only numba's first kernel sets the size of a shared pool.
    program = (
        "import numba, numpy as np, torch; from deephash.hamming import distance_histogram\n"
        "words, labels = np.arange(9, dtype=np.uint64)[:, None], np.arange(9)\n"
        "torch.set_num_threads(1)\n"
        "before = numba.get_num_threads()\n"
        "distance_histogram(words, labels, words, labels, 48)\n"
        "print(torch.get_num_threads(), numba.get_num_threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"1", b"0"]


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a package that is installed read-only, with a HOME that is, too."""

    def add_one(x: int) -> int:
        return x + 1

    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        njit(cache=True)(add_one)
    assert cpu.compile_kernel(nogil=True)(add_one)(1) == 2


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (cpu.min_distance, (ONE, MANY, (0,))),
        (cpu._count_distances, (ONE, ONE, MANY, (0,), np.zeros((2, 65), np.int64))),
        (cpu._count_grades, (ONE, ONE, MANY, MANY, (0,), (0,), np.zeros((65, 65), np.int64))),
        (
            cpu._search_range,
            (ONE[None], MANY, (0,), 0, 8, 1, np.zeros((1, 1), int), np.zeros((1, 1), int)),
        ),
    ],
    ids=["min_distance", "histogram", "graded_histogram", "k_nearest"],
)
@pytest.mark.skipif(
    not get_host_cpu_features().get("avx512vpopcntdq"), reason="no 512-bit popcount"
)
def test_kernels_use_512_bit_vectors(kernel, arguments):
    compiled = njit(kernel.py_func)
    compiled(*arguments)
    (assembly,) = compiled.inspect_asm().values()
    assert any("zmm" in line for line in assembly.splitlines() if "vpopcnt" in line)
