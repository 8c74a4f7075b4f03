import numpy as np
import pytest
import torch
from code_samples import naive_distances, pack_sample, sample

from deephash.experiment.settings import MAX_BITS
from deephash.hamming import cpu, gpu, knn
from deephash.hamming.codes import pack


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [1, 30, 500])
@pytest.mark.parametrize("bits", [12, 64, 128, 200])
@pytest.mark.parametrize("queries", [0, 1, 70])
def test_knn_equals_stable_sort(bits, k, queries, threads):
    data = sample(bits, "classes", queries=queries)
    distance, _ = naive_distances(*data)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    positions, distances = knn(pack(data[0]), pack(data[2]), k=k)
    torch.set_num_threads(threads_before)
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(distance, order, axis=1))


@pytest.mark.parametrize("k", [1, 100, 4000])
def test_database_of_many_tiles(k):
    rng = np.random.default_rng(0)
    database = rng.integers(2**20, size=(20_011, 1), dtype=np.uint64)  # distances 0 to 20: ties
    queries = database[rng.integers(len(database), size=40)]
    positions, distances = knn(queries, database, k=k)
    distance = np.bitwise_count(queries ^ database.T)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(distance, order, axis=1))


@pytest.mark.parametrize("words", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 259])
def test_min_distance_finds_the_nearest_at_every_position(words, size):
    rng = np.random.default_rng(0)
    query = rng.integers(2**64, size=words, dtype=np.uint64)
    database = rng.integers(2**64, size=(size, words), dtype=np.uint64)
    for nearest in range(size):
        codes = database.copy()
        codes[nearest] = query
        codes[nearest, 0] ^= np.uint64(0b1011)
        assert cpu.min_distance(query, codes.reshape(-1), (0,) * words) == 3
    opposite = query ^ np.uint64(2**64 - 1)
    codes = np.tile(opposite, (size, 1))
    assert cpu.min_distance(query, codes.reshape(-1), (0,) * words) == 64 * words


def test_memory_mapped_database(tmp_path):
    """Read-only arrays give the same result, and compile no kernel of their own."""
    queries, _, database, _, _ = pack_sample(*sample(48, "classes"))
    np.save(tmp_path / "codes.npy", database)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    knn(queries, database, k=9)
    signatures = list(cpu._search_shards.signatures)
    for result, expected in zip(
        knn(queries, mapped, k=9), knn(queries, database, k=9), strict=True
    ):
        np.testing.assert_array_equal(result, expected)
    assert cpu._search_shards.signatures == signatures


@pytest.mark.parametrize("bits", [48, 128, 2112, 5000])  # float16 counts to 2048
@pytest.mark.parametrize("k", [1, 30, 500])
def test_torch_kernel_equals_numba_kernel(bits, k, monkeypatch):
    monkeypatch.setattr(gpu, "PAIRS_PER_SEARCH", 70 * 170)  # chunks of 170 items
    queries, _, database, _, _ = pack_sample(*sample(bits, "classes", queries=70))
    tensors = (torch.from_numpy(words.view(np.int64)) for words in (queries, database))
    results = gpu.k_nearest(*tensors, k)
    for result, expected in zip(results, knn(queries, database, k=k), strict=True):
        np.testing.assert_array_equal(result.numpy(), expected)


def test_errors_name_the_value_and_the_shape():
    queries, _, database, _, _ = pack_sample(*sample(48, "classes"))
    with pytest.raises(ValueError, match="k is 501: give 1 to 500"):
        knn(queries, database, k=501)
    with pytest.raises(ValueError, match=r"query words have shape \(7, 1\), database words"):
        knn(queries, pack(np.ones((5, 70))), k=1)
    with pytest.raises(ValueError, match="k is 2.0: give an integer"):
        knn(queries, database, k=2.0)
    with pytest.raises(ValueError, match="codes have 65536 bits: a GPU searches codes of up to"):
        gpu.k_nearest(torch.zeros(1, 1024, dtype=torch.int64), torch.zeros(1, 1024), 1)


def test_the_widest_codes():
    codes = np.zeros((2, 101), np.uint64)
    assert knn(codes[:, :100], codes[:, :100], k=1)[0].tolist() == [[0], [0]]
    with pytest.raises(ValueError, match="rows of 101 words .* codes of 6400 bits and 6400 labels"):
        knn(codes, codes, k=1)
    assert 64 * cpu.MAX_WORDS == MAX_BITS  # of a run, refused before its training


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_codes_that_are_not_packed_are_refused(convert):
    codes = convert(np.random.default_rng(0).choice([-1, 1], (20, 48)))
    with pytest.raises(ValueError, match="not packed: pack them by"):
        knn(codes, codes, k=1)


def test_numpy_integers_are_taken():
    queries, _, database, _, _ = pack_sample(*sample(48, "classes"))
    assert knn(queries, database, k=np.int32(3))[0].shape == (7, 3)
