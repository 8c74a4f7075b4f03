"""Hamming kernels in numba for a CPU: one popcount per pair and word, threads over the queries.

Throughout, `width` is a tuple with one element per word of a code. Only its length matters: it is
part of the tuple's type, so the compiler knows it. Codes are "flat" if their words are in one row.

The kernels stay in one file, because numba's cache of compiled kernels is only invalidated by a
change of the file that a kernel is in.
"""

import functools
from collections.abc import Callable, Iterator
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

QUERIES_PER_TILE = 128  # compared with one tile of the database while it is in the cache
ITEMS_PER_TILE = 2048  # 16 KB per word, half of a first-level cache
CODES_PER_BATCH = 128  # distances that are computed before they are counted
CODES_PER_TABLE = 2**16 - 1  # as many as the table's 16-bit cells can count
MAX_WORDS = 100  # in a row: numba passes no longer tuple to the threads of a kernel
ITEMS_PER_BLOCK = 256  # a block is skipped if its minimum distance is too large
ITEMS_PER_PIECE = 32  # the pieces of a block that is not skipped are tested in the same way


def compile_kernel(**options: Any) -> Callable[..., Any]:
    """`numba.njit`, with its cache where a folder for that can be written to."""

    def compile_lazily(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # neither beside this file nor in HOME
            return njit(**options)(function)

    return compile_lazily


@contextmanager
def use_torch_thread_count() -> Iterator[None]:
    """Run numba with torch's number of threads, and leave torch's number unchanged.

    Both may share one OpenMP pool, whose size numba's first kernel sets. Without this, torch would
    continue with another number of threads, on which the rounding of its sums depends.
    """
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    max_threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
    numba.set_num_threads(min(torch_threads, max_threads))
    try:
        yield
    finally:
        numba.set_num_threads(numba_threads)
        torch.set_num_threads(torch_threads)


def k_nearest(query: Array, database: Array, k: int) -> tuple[Array, Array]:
    """Find the k nearest items of each query, nearest first, ties in database order.

    Args:
        query: packed codes, uint64 (q, words).
        database: packed codes, uint64 (n, words).
        k: number of items to find for each query, 1 to n.

    Returns:
        positions, int64, and distances, int32, (q, k) each.
    """
    query = read_only(query)
    with use_torch_thread_count():
        threads = numba.get_num_threads()
        rounds = -(-len(query) // (threads * QUERIES_PER_TILE))
        groups = max(1, min(len(query), threads * rounds))
        shards = -(-threads // groups)  # with few queries, the threads divide the database
        flat, width = flatten_words(database)
        positions, distances = _search_shards(query, flat, width, groups, shards, k)
    if shards > 1:  # shards are in database order, so a stable sort keeps ties in that order
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        positions = np.take_along_axis(positions, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
    return positions, distances


def flatten_words(words: Array) -> tuple[Array, tuple[int, ...]]:
    """Put the words of all codes in one row, read-only; return them and the kernels' `width`.

    Raises:
        ValueError: a code or a row of labels has more words than a kernel takes.
    """
    if words.shape[1] > MAX_WORDS:
        raise ValueError(
            f"rows of {words.shape[1]} words of 64 bits: a CPU's kernels take at most {MAX_WORDS} "
            f"words, that is codes of {64 * MAX_WORDS} bits and {64 * MAX_WORDS} labels"
        )
    return read_only(words.reshape(-1)), (0,) * words.shape[1]


def read_only(array: Array) -> Array:
    """A read-only view. Writable arrays are another type to numba: each kernel would compile twice.

    The arrays that users pass may be read-only, as those of a memory-mapped file are.
    """
    view = array.view()
    view.flags.writeable = False
    return view


@intrinsic
def _popcount(typing_context, word):  # type: ignore[no-untyped-def]
    """Count the set bits of a word by the processor's instruction: numba has no function for it."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def _prefer_512_bit_vectors(typing_context):  # type: ignore[no-untyped-def]
    """Compile the calling function with 512-bit vectors if the processor has them.

    By default the compiler uses 256 bits on most processors, which halves the rate of counting
    bits. llvmlite does not know the attribute, and its own `add` refuses unknown ones, hence
    `set.add`.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if isinstance(builder.function.attributes, set):
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def _min_distance_of_eights(typing_context, query, codes, width):  # type: ignore[no-untyped-def]
    """Minimum distance from a query to flat codes, except for the last n modulo 8 of them.

    Both arrays must be contiguous: their strides are not read.

    The vectors are written by hand. From a loop, the compiler would generate 64-bit minima, which
    cost twice as much as 32-bit ones. These suffice, because the upper half of a word that holds a
    distance is 0.
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

        def select_lanes(vector, indices):  # type: ignore[no-untyped-def]
            mask = ir.Constant(ir.VectorType(i32, len(indices)), indices)
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

        query_array, code_array = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1)
        )
        query_words = load(query_array, i64(0), ir.VectorType(i64, words))
        query_group = select_lanes(query_words, [*range(words)] * 8)
        minimum = cgutils.alloca_once_value(builder, halves([64 * words, 0] * 8))
        groups = builder.udiv(code_array.nitems, i64(8 * words))
        with cgutils.for_range(builder, groups) as loop:
            code_group = load(code_array, builder.mul(loop.index, i64(8 * words)), group)
            differing = builder.xor(code_group, query_group)
            counts = call(f"llvm.ctpop.v{8 * words}i64", group, differing)
            by_word = [
                select_lanes(counts, [*range(word, 8 * words, words)]) for word in range(words)
            ]
            distances = builder.bitcast(functools.reduce(builder.add, by_word), halves)
            smaller = call("llvm.umin.v16i32", halves, builder.load(minimum), distances)
            builder.store(smaller, minimum)
        lane_minima = builder.bitcast(builder.load(minimum), eight)
        return call("llvm.vector.reduce.umin.v8i64", i64, lane_minima)

    return types.uint64(query, codes, width), generate


@compile_kernel(nogil=True)
def _distance(query, codes, j, width):  # type: ignore[no-untyped-def]
    """Hamming distance from a query to the j-th of flat codes.

    Because the compiler knows the number of words, it works on eight codes at a time.
    """
    distance = np.uint64(0)
    for word in range(len(width)):
        distance += _popcount(query[word] ^ codes[j * len(width) + word])
    return distance


@compile_kernel(nogil=True)
def _shares_label(a, b):  # type: ignore[no-untyped-def]
    """Whether two rows of packed multi-hot labels have a bit in common."""
    shared = np.uint64(0)
    for word in range(len(a)):
        shared |= a[word] & b[word]
    return shared != 0


@compile_kernel(nogil=True)
def _shared_label_count(query_key, keys, j, width):  # type: ignore[no-untyped-def]
    """Number of labels that a query shares with the j-th item, from flat packed labels."""
    count = np.uint64(0)
    for word in range(len(width)):
        count += _popcount(query_key[word] & keys[j * len(width) + word])
    return count


@compile_kernel(parallel=True, nogil=True)
def histogram(  # type: ignore[no-untyped-def]
    query, query_order, database, first, end, width, bits
):
    """Count all items and the relevant items of each query at each distance, for class indices.

    Queries are processed in pairs.

    Args:
        query: packed codes, (q, words).
        query_order: positions of the queries, sorted by class, (q,).
        database: flat packed codes, sorted by class.
        first: for each query, the first item of its class, (q,).
        end: for each query, the position after the last item of its class, (q,).
        width: see the module.
        bits: length of a code.

    Returns:
        items and relevant items, two arrays (q, bits + 1).
    """
    words, last = len(width), len(query) - 1
    items = np.zeros((len(query), bits + 1), np.int64)
    relevant = np.zeros((len(query), bits + 1), np.int64)
    for pair in prange((len(query) + 1) // 2):
        # If the number of queries is odd, the last query is paired with itself.
        i, j = query_order[2 * pair], query_order[min(2 * pair + 1, last)]
        a, b = query[i], query[j]
        # Counts of the class of i and of the class of j. If both have one class, `after` is its
        # end and nothing is counted in the second.
        counts_i, counts_j = np.zeros((2, bits + 1), np.int64), np.zeros((2, bits + 1), np.int64)
        after = max(end[i], first[j])
        _count_distances(a, b, database[first[i] * words : end[i] * words], width, counts_i)
        _count_distances(a, b, database[after * words : end[j] * words], width, counts_j)
        relevant[i] = counts_i[0]
        relevant[j] = counts_i[1] if first[j] < end[i] else counts_j[1]
        counts = counts_i + counts_j
        _count_distances(a, b, database[: first[i] * words], width, counts)
        _count_distances(a, b, database[end[i] * words : after * words], width, counts)
        _count_distances(a, b, database[end[j] * words :], width, counts)
        items[i], items[j] = counts
    return items, relevant


@compile_kernel(nogil=True)
def _count_distances(a, b, codes, width, counts):  # type: ignore[no-untyped-def]
    """Add the histograms of the distances from a and from b to flat codes to counts, (2, bits + 1).

    Increments limit the speed, so one increment serves both queries: the two distances are an index
    into a table, whose sums over rows and columns are the histograms. For few codes the table does
    not pay.
    """
    _prefer_512_bit_vectors()
    words, side = len(width), counts.shape[1]
    stride = np.uint64(np.uint32(side))  # known to fit 32 bits: a product is one instruction
    # Index and table share one allocation. In two, their addresses may agree in the lower bits, and
    # reads of one then wait for writes to the other.
    memory = np.empty(8 * CODES_PER_BATCH + 2 * side * side, np.uint8)
    index = memory[: 8 * CODES_PER_BATCH].view(np.uint64)  # as wide as distances: narrowing costs
    table = memory[8 * CODES_PER_BATCH :].view(np.uint16)
    for begin in range(0, len(codes) // words, CODES_PER_TABLE):
        chunk = codes[begin * words : (begin + CODES_PER_TABLE) * words]
        n = len(chunk) // words
        if n < side * side:
            for j in range(n):
                counts[0, _distance(a, chunk, j, width)] += 1
                counts[1, _distance(b, chunk, j, width)] += 1
            continue
        table[:] = 0
        batched = n // CODES_PER_BATCH * CODES_PER_BATCH
        for start in range(0, batched, CODES_PER_BATCH):
            batch = chunk[start * words :]
            for j in range(CODES_PER_BATCH):
                row = _distance(a, batch, j, width)
                index[j] = row * stride + _distance(b, batch, j, width)
            for j in range(CODES_PER_BATCH):
                table[index[j]] += 1
        for j in range(batched, n):
            table[_distance(a, chunk, j, width) * stride + _distance(b, chunk, j, width)] += 1
        for row in range(side):
            row_sum = np.uint32(0)
            for column in range(side):
                row_sum += table[row * side + column]
                counts[1, column] += table[row * side + column]
            counts[0, row] += row_sum


@compile_kernel(parallel=True, nogil=True)
def histogram_multi_hot(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, width, bits
):
    """Count all items and the relevant items of each query at each distance, for multi-hot labels.

    Items are relevant if their packed labels, (n, label words), share a bit with those of the
    query, (q, label words). The database's codes are flat.
    """
    items = np.zeros((len(query), bits + 1), np.int64)
    relevant = np.zeros((len(query), bits + 1), np.int64)
    for i in prange(len(query)):
        code = query[i]  # inside the loop, the compiler may miss that it is constant
        for j in range(len(database_keys)):
            distance = _distance(code, database, j, width)
            items[i, distance] += 1
            relevant[i, distance] += _shares_label(query_keys[i], database_keys[j])
    return items, relevant


@compile_kernel(parallel=True, nogil=True)
def graded_histogram(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, width, key_width, bits, gain
):
    """Count the items of each query by distance and by grade, the number of shared labels.

    Args:
        query: packed codes, (q, words).
        query_keys: packed multi-hot labels, (q, label words).
        database: flat packed codes.
        database_keys: flat packed multi-hot labels.
        width: see the module.
        key_width: the same for label words.
        bits: length of a code.
        gain: gain of each grade, (max_grade + 1,).

    Returns:
        items, relevant items, sums of the grades and sums of their gains, four arrays
        (q, bits + 1), and items by grade, (q, max_grade + 1).
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


@compile_kernel(nogil=True)
def _count_grades(  # type: ignore[no-untyped-def]
    code, key, codes, keys, width, key_width, table
):
    """Add the number of items of each distance and grade to `table`, (distances, grades).

    Codes and packed labels are flat. One increment per pair serves all sums.
    """
    _prefer_512_bit_vectors()
    words, key_words = len(width), len(key_width)
    stride = np.uint64(np.uint32(table.shape[1]))  # see `_count_distances`
    cells = table.reshape(-1)
    index = np.empty(CODES_PER_BATCH, np.uint64)
    n = len(codes) // words
    batched = n // CODES_PER_BATCH * CODES_PER_BATCH
    for start in range(0, batched, CODES_PER_BATCH):
        batch, key_batch = codes[start * words :], keys[start * key_words :]
        for j in range(CODES_PER_BATCH):
            distance = _distance(code, batch, j, width)
            index[j] = distance * stride + _shared_label_count(key, key_batch, j, key_width)
        for j in range(CODES_PER_BATCH):
            cells[index[j]] += 1
    for j in range(batched, n):
        table[_distance(code, codes, j, width), _shared_label_count(key, keys, j, key_width)] += 1


@compile_kernel(parallel=True, nogil=True)
def database_order(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, order, first, end, width, bits, cutoffs
):
    """Count items by distance, and sum the precisions of the ranking with ties in database order.

    The rank of an item is the number of nearer items plus its position among the items at the same
    distance. A first pass over all items computes these positions, a second pass over the relevant
    items sums the precisions at their ranks.

    Args:
        query: packed codes, (q, words).
        query_keys: class indices (q,), or packed multi-hot labels (q, label words).
        database: flat packed codes.
        database_keys: class indices (n,), or packed multi-hot labels (n, label words).
        order: positions of the items, sorted by class, (n,); unused for multi-hot labels.
        first: for each query, where its class begins in `order`, (q,); unused as above.
        end: for each query, where its class ends in `order`, (q,); unused as above.
        width: see the module.
        bits: length of a code.
        cutoffs: ascending ranks, the last of them n.

    Returns:
        items and relevant items, (q, bits + 1) each; sums of the precisions at the relevant ranks
        up to each cutoff, and numbers of these ranks, (q, len(cutoffs)) each.
    """
    q, n, last = len(query), len(database_keys), len(cutoffs) - 1
    items = np.zeros((q, bits + 1), np.int64)
    relevant = np.zeros((q, bits + 1), np.int64)
    sums = np.zeros((q, last + 1), np.float64)
    hits = np.zeros((q, last + 1), np.int64)
    for i in prange(q):
        _prefer_512_bit_vectors()
        code = query[i]  # see `histogram_multi_hot`
        distance = np.empty(n, np.uint16)
        for j in range(n):
            distance[j] = _distance(code, database, j, width)
        seen = np.zeros(bits + 1, np.int32)
        tie_position = np.empty(n, np.int32)
        for j in range(n):
            tie_position[j] = seen[distance[j]]
            seen[distance[j]] += 1
        if query_keys.ndim == 1:
            relevant_items = order[first[i] : end[i]]
        else:
            shared = np.empty(n, np.bool_)
            for j in range(n):
                shared[j] = _shares_label(query_keys[i], database_keys[j])
            relevant_items = np.flatnonzero(shared)
        for j in relevant_items:
            relevant[i, distance[j]] += 1
        items[i] = seen
        nearer = np.cumsum(items[i]) - items[i]
        relevant_so_far = np.cumsum(relevant[i]) - relevant[i]
        total = 0.0
        for j in relevant_items:
            d = distance[j]
            relevant_so_far[d] += 1
            rank = nearer[d] + tie_position[j] + 1
            precision = relevant_so_far[d] / rank
            total += precision
            for c in range(last):
                if rank <= cutoffs[c]:
                    sums[i, c] += precision
                    hits[i, c] += 1
        sums[i, last], hits[i, last] = total, len(relevant_items)
    return items, relevant, sums, hits


@compile_kernel(parallel=True, nogil=True)
def _search_shards(  # type: ignore[no-untyped-def]
    query, database, width, groups, shards, k
):
    """Find the k nearest of each query in each shard of the database.

    Args:
        query: packed codes, (q, words).
        database: flat packed codes.
        width: see the module.
        groups: number of groups that the queries are divided into.
        shards: number of shards that the database is divided into.
        k: number of items to find for each query and shard.

    Returns:
        positions and distances of the shards side by side, (q, shards * k) each.
    """
    n = len(database) // len(width)
    positions = np.empty((len(query), shards * k), np.int64)
    distances = np.empty((len(query), shards * k), np.int32)
    for task in prange(groups * shards):
        group, shard = task // shards, task % shards
        rows = slice(group * len(query) // groups, (group + 1) * len(query) // groups)
        columns = slice(shard * k, (shard + 1) * k)
        _search_range(
            query[rows], database, width, shard * n // shards, (shard + 1) * n // shards, k,
            positions[rows, columns], distances[rows, columns],
        )  # fmt: skip
    return positions, distances


@compile_kernel(nogil=True)
def _search_range(  # type: ignore[no-untyped-def]
    query, database, width, start, stop, k, positions, distances
):
    """Write the k nearest of the items from `start` to `stop` to positions and distances.

    Items nearer than a query's bound are kept as candidates. As soon as there are 1.25 k of them,
    all but the k nearest are dropped, and the bound falls to the distance of the k-th: in total,
    O(k log(n / k)) items become candidates. The database's codes are flat.
    """
    _prefer_512_bit_vectors()
    words, rows, bits = len(width), len(query), 64 * len(width)
    max_kept = k + max(1, k // 4)
    kept = np.empty((rows, max_kept + ITEMS_PER_BLOCK), np.int64)
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
                if min_distance(code, codes, width) >= bound[row]:
                    continue
                size[row] = _append_nearer(
                    code, codes, width, bound[row], block, kept[row], distance[row], size[row]
                )
                if size[row] >= max_kept:
                    bound[row] = _select_nearest(kept[row], distance[row], size[row], k, bits)
                    size[row] = k
    for row in range(rows):
        if size[row] > k:
            _select_nearest(kept[row], distance[row], size[row], k, bits)
        # Write the candidates in order of distance, by a counting sort.
        count = min(k, size[row])
        first = np.zeros(bits + 2, np.int64)
        for j in range(count):
            first[distance[row, j] + 1] += 1
        first = np.cumsum(first)
        for j in range(count):
            target = first[distance[row, j]]
            first[distance[row, j]] += 1
            positions[row, target], distances[row, target] = kept[row, j], distance[row, j]
        positions[row, count:], distances[row, count:] = -1, bits + 1  # the shard has fewer than k


@compile_kernel(nogil=True)
def _append_nearer(  # type: ignore[no-untyped-def]
    query, codes, width, bound, first, kept, distance, size
):
    """Append the flat codes that are nearer than the bound to the candidates; return the new size.

    `first` is the position of the first code in the database.
    """
    words = len(width)
    n = len(codes) // words
    for begin in range(0, n, ITEMS_PER_PIECE):
        end = min(begin + ITEMS_PER_PIECE, n)
        piece = codes[begin * words : end * words]  # indexed from 0, so no index wraps around
        if min_distance(query, piece, width) >= bound:
            continue
        for j in range(end - begin):
            d = _distance(query, piece, j, width)
            if d < bound:
                kept[size] = first + begin + j
                distance[size] = d
                size += 1
    return size


@compile_kernel(nogil=True)
def min_distance(query, codes, width):  # type: ignore[no-untyped-def]
    """Minimum distance from a query to flat codes."""
    _prefer_512_bit_vectors()
    n = len(codes) // len(width)
    minimum = _min_distance_of_eights(query, codes, width)
    for j in range(n // 8 * 8, n):
        minimum = min(minimum, _distance(query, codes, j, width))
    return minimum


@compile_kernel(nogil=True)
def _select_nearest(kept, distance, size, k, bits):  # type: ignore[no-untyped-def]
    """Move the k nearest candidates to the front, order preserved; return the k-th distance."""
    counts = np.zeros(bits + 1, np.int64)
    for j in range(size):
        counts[distance[j]] += 1
    kth, nearer = 0, 0
    while nearer + counts[kth] < k:
        nearer += counts[kth]
        kth += 1
    ties, target = k - nearer, 0
    for j in range(size):
        if distance[j] > kth or (distance[j] == kth and ties == 0):
            continue
        ties -= distance[j] == kth
        kept[target], distance[target] = kept[j], distance[j]
        target += 1
    return kth
