import numpy as np
import pytest
import torch

from deephash.hamming.codes import pack, sign, unpack


def test_sign_of_zero_is_plus_one():
    codes = sign(torch.tensor([[-0.5, 0.0, -0.0, 2.0, float("-inf")]]))
    assert codes.dtype == torch.int8
    assert codes.tolist() == [[-1, 1, 1, 1, -1]]


def test_sign_refuses_nan_and_names_its_position():
    with pytest.raises(ValueError, match="row 1, bit 2 is NaN"):
        sign(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, float("nan")]]))


def test_bit_k_of_a_code_is_bit_k_of_its_words():
    codes = np.full((1, 70), -1)
    codes[0, [0, 3, 63, 64, 69]] = 1
    assert pack(codes).tolist() == [[1 + 2**3 + 2**63, 1 + 2**5]]
    assert pack(codes).dtype == np.uint64


@pytest.mark.parametrize("bits", [1, 7, 12, 48, 63, 64, 65, 128, 130])
def test_unpack_inverts_pack(bits):
    codes = np.random.default_rng(bits).choice(np.array([-1, 1], np.int8), (9, bits))
    words = pack(codes)
    assert words.shape == (9, -(-bits // 64))
    np.testing.assert_array_equal(unpack(words, bits), codes)
    np.testing.assert_array_equal(pack(torch.from_numpy(codes).float()), words)
    assert unpack(words, bits).dtype == np.int8


def test_pack_and_unpack_of_no_codes():
    assert pack(np.empty((0, 48))).shape == (0, 1)
    assert unpack(np.empty((0, 1), np.uint64), 48).shape == (0, 48)


def test_pack_refuses_other_values_and_shapes():
    with pytest.raises(ValueError, match=r"row 0 has 0\.5 at bit 1"):
        pack(torch.tensor([[1.0, 0.5]]))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        pack(np.ones(3))
    with pytest.raises(ValueError, match="bits >= 1"):
        pack(np.ones((3, 0)))


def test_unpack_refuses_another_number_of_bits():
    words = pack(np.ones((2, 48)))
    with pytest.raises(ValueError, match=r"65 bits are packed into \(n, 2\)"):
        unpack(words, 65)
    with pytest.raises(ValueError, match="bits is 0"):
        unpack(words, 0)
    with pytest.raises(ValueError, match="padding bit 40 set although codes have 40 bits"):
        unpack(words, 40)
