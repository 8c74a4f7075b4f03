"""The Hamming kernels for a CPU, in numba: one popcount a pair, threads over the queries.

All in one file, since numba's cache of compiled kernels only watches the file that a kernel is in.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = npt.NDArray[Any]

QUERIES_PER_TILE = 128  # they share a stretch of the database while it is in the cache
ITEMS_PER_TILE = 2048  # 16 KB a word, half of a first-level cache
CODES_AT_A_TIME = 128  # whose distances are computed before they are counted
CODES_PER_TABLE = 2**16 - 1  # as many as its 16 bits can count
ITEMS_PER_BLOCK = 256  # whose least distance decides whether to look into it
ITEMS_PER_PIECE = 32  # of such a block, whose least distance decides whether to look at each


@contextmanager
def as_many_threads_as_torch() -> Iterator[None]:
    """Numba on torch's number of threads, which it must not change.

    Both may share one OpenMP pool: numba's first kernel sets its size, torch would go on with
    another number of threads, and its sums depend on that number.
    """
    threads, before = torch.get_num_threads(), numba.get_num_threads()
    at_most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
    numba.set_num_threads(min(threads, at_most))
    try:
        yield
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(threads)


def k_nearest(query: Array, database: Array, k: int) -> tuple[Array, Array]:
    """Positions and distances of the k nearest, (q, k) each, from words (q, w) and (n, w)."""
    with as_many_threads_as_torch():
        threads = numba.get_num_threads()
        rounds = -(-len(query) // (threads * QUERIES_PER_TILE))
        groups = max(1, min(len(query), threads * rounds))
        shards = -(-threads // groups)  # few queries: threads share the database
        positions, distances = _k_nearest_numba(query, *flat(database), groups, shards, k)
    if shards > 1:  # each shard's are in order, and the shards are
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        positions = np.take_along_axis(positions, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
    return positions, distances


def flat(words: Array) -> tuple[Array, tuple[int, ...]]:
    """The words of codes in a row, and the tuple that tells the kernels how many a code has."""
    return words.reshape(-1), (0,) * words.shape[1]


@intrinsic
def _popcount(typing_context, word):  # type: ignore[no-untyped-def]
    """Number of set bits, the processor's own instruction: numba has no function for it."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def _wide_vectors(typing_context):  # type: ignore[no-untyped-def]
    """Have the calling function work on 512 bits at a time where the processor can.

    The compiler holds most processors to 256, which halves the rate of counting bits. llvmlite has
    no name for the attribute and its own `add` takes no other, so that of `set` is used.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if isinstance(builder.function.attributes, set):
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def _least_distance_by_eights(typing_context, query, codes, width):  # type: ignore[no-untyped-def]
    """The distance of the nearest of some codes, words flat; the last n modulo 8 are left out.

    Both arrays must be contiguous: their strides are not read.

    In vectors written by hand. From a loop the compiler makes minima of 64 bits, which cost twice
    those of 32, and 32 do: the upper half of a word that holds a distance is 0.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        words, i64, i32 = len(signature.args[2]), ir.IntType(64), ir.IntType(32)
        group, eight = ir.VectorType(i64, 8 * words), ir.VectorType(i64, 8)
        halves = ir.VectorType(i32, 16)

        def call(name, result, *operands):  # type: ignore[no-untyped-def]
            function_type = ir.FunctionType(result, [operand.type for operand in operands])
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            return builder.call(function, operands)

        def load(array, index, vector):  # type: ignore[no-untyped-def]
            address = builder.gep(array.data, [index])
            return builder.load(builder.bitcast(address, vector.as_pointer()), align=8)

        def lanes(vector, places):  # type: ignore[no-untyped-def]
            mask = ir.Constant(ir.VectorType(i32, len(places)), places)
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

        query_array, code_array = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1)
        )
        query_words = load(query_array, i64(0), ir.VectorType(i64, words))
        query_group = lanes(query_words, [*range(words)] * 8)
        least = cgutils.alloca_once_value(builder, halves([64 * words, 0] * 8))
        groups = builder.udiv(code_array.nitems, i64(8 * words))
        with cgutils.for_range(builder, groups) as loop:
            code_group = load(code_array, builder.mul(loop.index, i64(8 * words)), group)
            differing = builder.xor(code_group, query_group)
            counts = call(f"llvm.ctpop.v{8 * words}i64", group, differing)
            by_word = [lanes(counts, [*range(word, 8 * words, words)]) for word in range(words)]
            distances = builder.bitcast(functools.reduce(builder.add, by_word), halves)
            nearer = call("llvm.umin.v16i32", halves, builder.load(least), distances)
            builder.store(nearer, least)
        of_lanes = builder.bitcast(builder.load(least), eight)
        return call("llvm.vector.reduce.umin.v8i64", i64, of_lanes)

    return types.uint64(query, codes, width), generate


@njit(nogil=True, cache=True)
def _distance(query, codes, j, width):  # type: ignore[no-untyped-def]
    """From a query's words to the j-th of some codes, whose words are flat.

    `width` is a tuple as long as a code has words: its length is known to the compiler, which then
    works on eight codes at a time.
    """
    distance = np.uint64(0)
    for word in range(len(width)):
        distance += _popcount(query[word] ^ codes[j * len(width) + word])
    return distance


@njit(nogil=True, cache=True)
def _share_label(a, b):  # type: ignore[no-untyped-def]
    """Whether multi-hot labels, each a row of words, have a bit in common."""
    shared = np.uint64(0)
    for word in range(len(a)):
        shared |= a[word] & b[word]
    return shared != 0


@njit(nogil=True, cache=True)
def _grade(query_key, keys, j, width):  # type: ignore[no-untyped-def]
    """How many labels a query shares with the j-th item, whose label words are flat."""
    grade = np.uint64(0)
    for word in range(len(width)):
        grade += _popcount(query_key[word] & keys[j * len(width) + word])
    return grade


@njit(parallel=True, nogil=True, cache=True)
def histogram(  # type: ignore[no-untyped-def]
    query, by_class, database, first, end, width, bits
):
    """Items and relevant items by query and distance, two arrays (q, bits + 1), of class indices.

    Both sides are taken class by class, the queries in the order `by_class` and in pairs; the items
    from `first` to `end` are relevant to a query.
    """
    words, last = len(width), len(query) - 1
    items = np.zeros((len(query), bits + 1), np.int64)
    relevant = np.zeros((len(query), bits + 1), np.int64)
    for pair in prange((len(query) + 1) // 2):
        one, other = by_class[2 * pair], by_class[min(2 * pair + 1, last)]  # the odd one out twice
        a, b = query[one], query[other]
        of_one, of_other = np.zeros((2, bits + 1), np.int64), np.zeros((2, bits + 1), np.int64)
        after = max(end[one], first[other])  # both of one class: its end, and no item is of_other
        _count(a, b, database[first[one] * words : end[one] * words], width, of_one)
        _count(a, b, database[after * words : end[other] * words], width, of_other)
        relevant[one] = of_one[0]
        relevant[other] = of_one[1] if first[other] < end[one] else of_other[1]
        of_both = of_one + of_other
        _count(a, b, database[: first[one] * words], width, of_both)
        _count(a, b, database[end[one] * words : after * words], width, of_both)
        _count(a, b, database[end[other] * words :], width, of_both)
        items[one], items[other] = of_both
    return items, relevant


@njit(nogil=True, cache=True)
def _count(a, b, codes, width, counts):  # type: ignore[no-untyped-def]
    """Add to `counts`, (2, bits + 1), how many codes, words flat, are how far from a and from b.

    Increments bound the speed, so one serves both: the two distances make an index into a table,
    whose sums over rows and columns are the histograms. Few codes are not worth the table.
    """
    _wide_vectors()
    words, side = len(width), counts.shape[1]
    stride = np.uint64(np.uint32(side))  # known to be of 32 bits: its product is one instruction
    # In one piece: apart, a read of one may wait for a write of the other that looks like its own.
    memory = np.empty(8 * CODES_AT_A_TIME + 2 * side * side, np.uint8)
    index = memory[: 8 * CODES_AT_A_TIME].view(np.uint64)  # as wide as a distance: narrowing costs
    table = memory[8 * CODES_AT_A_TIME :].view(np.uint16)
    for begin in range(0, len(codes) // words, CODES_PER_TABLE):
        some = codes[begin * words : (begin + CODES_PER_TABLE) * words]
        n = len(some) // words
        if n < side * side:
            for j in range(n):
                counts[0, _distance(a, some, j, width)] += 1
                counts[1, _distance(b, some, j, width)] += 1
            continue
        table[:] = 0
        whole = n // CODES_AT_A_TIME * CODES_AT_A_TIME
        for start in range(0, whole, CODES_AT_A_TIME):
            block = some[start * words :]
            for j in range(CODES_AT_A_TIME):
                row = _distance(a, block, j, width)
                index[j] = row * stride + _distance(b, block, j, width)
            for j in range(CODES_AT_A_TIME):
                table[index[j]] += 1
        for j in range(whole, n):
            table[_distance(a, some, j, width) * stride + _distance(b, some, j, width)] += 1
        for row in range(side):
            sum_of_row = np.uint32(0)
            for column in range(side):
                sum_of_row += table[row * side + column]
                counts[1, column] += table[row * side + column]
            counts[0, row] += sum_of_row


@njit(parallel=True, nogil=True, cache=True)
def histogram_multi_hot(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, width, bits
):
    """`histogram` of labels as words: relevant are the items that share a set bit with a query."""
    items = np.zeros((len(query), bits + 1), np.int64)
    relevant = np.zeros((len(query), bits + 1), np.int64)
    for i in prange(len(query)):
        code = query[i]  # outside of the loop: inside, the compiler may miss that it is fixed
        for j in range(len(database_keys)):
            distance = _distance(code, database, j, width)
            items[i, distance] += 1
            relevant[i, distance] += _share_label(query_keys[i], database_keys[j])
    return items, relevant


@njit(parallel=True, nogil=True, cache=True)
def graded_histogram(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, width, key_width, bits, gain
):
    """`histogram_multi_hot` with grades, the numbers of labels shared with a query.

    Items, relevant items, sums of the grades and of their gains by query and distance, four arrays
    (q, bits + 1), and items by query and grade, (q, len(gain)). `gain` holds that of each grade.
    """
    items = np.zeros((len(query), bits + 1), np.int64)
    relevant, grades = np.zeros_like(items), np.zeros_like(items)
    gains = np.zeros(items.shape, np.float64)
    by_grade = np.zeros((len(query), len(gain)), np.int64)
    for i in prange(len(query)):
        table = np.zeros((bits + 1, len(gain)), np.int64)
        _count_grades(query[i], query_keys[i], database, database_keys, width, key_width, table)
        for distance in range(bits + 1):
            for grade in range(len(gain)):
                count = table[distance, grade]
                items[i, distance] += count
                relevant[i, distance] += count * (grade > 0)
                grades[i, distance] += count * grade
                gains[i, distance] += count * gain[grade]
                by_grade[i, grade] += count
    return items, relevant, grades, gains, by_grade


@njit(nogil=True, cache=True)
def _count_grades(  # type: ignore[no-untyped-def]
    code, key, codes, keys, width, key_width, table
):
    """Add to `table`, distance x grade, how many items have which.

    One increment a pair serves all sums, as in `_count`; words of codes and of labels are flat.
    """
    _wide_vectors()
    words, key_words = len(width), len(key_width)
    stride = np.uint64(np.uint32(table.shape[1]))  # as in `_count`
    cells = table.reshape(-1)
    index = np.empty(CODES_AT_A_TIME, np.uint64)
    n = len(codes) // words
    whole = n // CODES_AT_A_TIME * CODES_AT_A_TIME
    for start in range(0, whole, CODES_AT_A_TIME):
        block, key_block = codes[start * words :], keys[start * key_words :]
        for j in range(CODES_AT_A_TIME):
            distance = _distance(code, block, j, width)
            index[j] = distance * stride + _grade(key, key_block, j, key_width)
        for j in range(CODES_AT_A_TIME):
            cells[index[j]] += 1
    for j in range(whole, n):
        table[_distance(code, codes, j, width), _grade(key, keys, j, key_width)] += 1


@njit(parallel=True, nogil=True, cache=True)
def database_order(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, order, first, end, width, bits, cutoffs
):
    """A pass over all items finds each one's place among its equals, one over the relevant ranks.

    The rank of an item is the number of nearer items, known when all are counted, plus its place.
    """
    q, n, last = len(query), len(database_keys), len(cutoffs) - 1
    items = np.zeros((q, bits + 1), np.int64)
    relevant = np.zeros((q, bits + 1), np.int64)
    sums = np.zeros((q, last + 1), np.float64)
    hits = np.zeros((q, last + 1), np.int64)
    for i in prange(q):
        _wide_vectors()
        code = query[i]  # as in `histogram_multi_hot`
        distance = np.empty(n, np.uint16)
        for j in range(n):
            distance[j] = _distance(code, database, j, width)
        seen = np.zeros(bits + 1, np.int32)
        place = np.empty(n, np.int32)
        for j in range(n):
            place[j] = seen[distance[j]]
            seen[distance[j]] += 1
        if query_keys.ndim == 1:
            mine = order[first[i] : end[i]]
        else:
            shared = np.empty(n, np.bool_)
            for j in range(n):
                shared[j] = _share_label(query_keys[i], database_keys[j])
            mine = np.flatnonzero(shared)
        for j in mine:
            relevant[i, distance[j]] += 1
        items[i] = seen
        nearer = np.cumsum(items[i]) - items[i]
        found = np.cumsum(relevant[i]) - relevant[i]
        total = 0.0
        for j in mine:
            d = distance[j]
            found[d] += 1
            rank = nearer[d] + place[j] + 1
            precision = found[d] / rank
            total += precision
            for c in range(last):
                if rank <= cutoffs[c]:
                    sums[i, c] += precision
                    hits[i, c] += 1
        sums[i, last], hits[i, last] = total, len(mine)
    return items, relevant, sums, hits


@njit(parallel=True, nogil=True, cache=True)
def _k_nearest_numba(  # type: ignore[no-untyped-def]
    query, database, width, groups, shards, k
):
    """The k nearest of each shard of the database side by side, (q, shards * k)."""
    n = len(database) // len(width)
    positions = np.empty((len(query), shards * k), np.int64)
    distances = np.empty((len(query), shards * k), np.int32)
    for task in prange(groups * shards):
        group, shard = task // shards, task % shards
        rows = slice(group * len(query) // groups, (group + 1) * len(query) // groups)
        columns = slice(shard * k, (shard + 1) * k)
        _scan(
            query[rows], database, width, shard * n // shards, (shard + 1) * n // shards, k,
            positions[rows, columns], distances[rows, columns],
        )  # fmt: skip
    return positions, distances


@njit(nogil=True, cache=True)
def _scan(  # type: ignore[no-untyped-def]
    query, database, width, start, stop, k, positions, distances
):
    """The k nearest among the items from `start` to `stop`, written to positions and distances.

    Items nearer than a query's bound are kept. When k and a quarter are, all but the k nearest go
    and the bound falls to the distance of the last: O(k log(n / k)) items are kept in all.
    """
    _wide_vectors()
    words, rows, bits = len(width), len(query), 64 * len(width)
    enough = k + max(1, k // 4)
    kept = np.empty((rows, enough + ITEMS_PER_BLOCK), np.int64)
    distance = np.empty(kept.shape, np.uint16)
    size = np.zeros(rows, np.int64)
    bound = np.full(rows, bits + 1, np.uint64)
    for tile in range(start, stop, ITEMS_PER_TILE):
        tile_end = min(tile + ITEMS_PER_TILE, stop)
        for row in range(rows):
            code = query[row]
            for block in range(tile, tile_end, ITEMS_PER_BLOCK):
                end = min(block + ITEMS_PER_BLOCK, tile_end)
                codes = database[block * words : end * words]
                if least_distance(code, codes, width) >= bound[row]:
                    continue
                size[row] = _keep_nearer(
                    code, codes, width, bound[row], block, kept[row], distance[row], size[row]
                )
                if size[row] >= enough:
                    bound[row] = _keep_nearest(kept[row], distance[row], size[row], k, bits)
                    size[row] = k
    for row in range(rows):
        if size[row] > k:
            _keep_nearest(kept[row], distance[row], size[row], k, bits)
        found = min(k, size[row])
        first = np.zeros(bits + 2, np.int64)
        for j in range(found):
            first[distance[row, j] + 1] += 1
        first = np.cumsum(first)
        for j in range(found):
            place = first[distance[row, j]]
            first[distance[row, j]] += 1
            positions[row, place], distances[row, place] = kept[row, j], distance[row, j]
        positions[row, found:], distances[row, found:] = -1, bits + 1  # a shard of fewer than k


@njit(nogil=True, cache=True)
def _keep_nearer(  # type: ignore[no-untyped-def]
    query, codes, width, bound, first, kept, distance, size
):
    """Add those of some codes that are nearer than the bound; how many are kept then.

    `first` is the position of the first code, words flat.
    """
    words = len(width)
    n = len(codes) // words
    for begin in range(0, n, ITEMS_PER_PIECE):
        end = min(begin + ITEMS_PER_PIECE, n)
        piece = codes[begin * words : end * words]  # from 0: no index wraps around
        if least_distance(query, piece, width) >= bound:
            continue
        for j in range(end - begin):
            d = _distance(query, piece, j, width)
            if d < bound:
                kept[size] = first + begin + j
                distance[size] = d
                size += 1
    return size


@njit(nogil=True, cache=True)
def least_distance(query, codes, width):  # type: ignore[no-untyped-def]
    """The distance of the nearest of some codes, words flat."""
    _wide_vectors()
    n = len(codes) // len(width)
    least = _least_distance_by_eights(query, codes, width)
    for j in range(n // 8 * 8, n):
        least = min(least, _distance(query, codes, j, width))
    return least


@njit(nogil=True, cache=True)
def _keep_nearest(kept, distance, size, k, bits):  # type: ignore[no-untyped-def]
    """Move the k nearest of `size` items to the front, in their order; the last one's distance."""
    counts = np.zeros(bits + 1, np.int64)
    for j in range(size):
        counts[distance[j]] += 1
    last, nearer = 0, 0
    while nearer + counts[last] < k:
        nearer += counts[last]
        last += 1
    ties, place = k - nearer, 0
    for j in range(size):
        if distance[j] > last or (distance[j] == last and ties == 0):
            continue
        ties -= distance[j] == last
        kept[place], distance[place] = kept[j], distance[j]
        place += 1
    return last
