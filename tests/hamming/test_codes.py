import numpy as np
import pytest
import torch

from deephash.hamming.codes import as_int, pack, sign, unpack


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


BINARY_CODES = [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.int8])
def test_codes_of_0_and_1_are_no_logits(dtype):
    with pytest.raises(ValueError, match=r"all logits are 0 or 1.*codes\.int\(\) \* 2 - 1"):
        sign(torch.tensor(BINARY_CODES, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_types_without_negative_numbers_are_no_logits(dtype):
    with pytest.raises(ValueError, match="which is never negative"):
        sign(torch.tensor(BINARY_CODES, dtype=dtype))


def test_the_remedy_for_codes_of_0_and_1_packs_them():
    with pytest.raises(ValueError, match=r"has 0 at bit 0, .*codes\.int\(\) \* 2 - 1"):
        pack(torch.tensor(BINARY_CODES))
    codes = torch.tensor(BINARY_CODES, dtype=torch.bool)
    assert pack(codes.int() * 2 - 1).tolist() == [[0b110], [0b001]]


@pytest.mark.parametrize("logits", [torch.zeros(2, 3), torch.ones(2, 3)])
def test_constant_logits_have_signs(logits):
    assert (sign(logits) == 1).all()


@pytest.mark.parametrize("value", [np.int32(48), np.uint8(48), torch.tensor(48)])
def test_as_int_takes_integers_of_any_kind(value):
    assert as_int(value, "bits") == 48
    assert type(as_int(value, "bits")) is int


@pytest.mark.parametrize("value", [48.0, "48", None, np.array([[48]]), np.float64(48)])
def test_as_int_refuses_anything_else(value):
    with pytest.raises(ValueError, match="bits is .*: give an integer"):
        as_int(value, "bits")


def test_unpack_refuses_another_number_of_bits():
    words = pack(np.ones((2, 48)))
    with pytest.raises(ValueError, match=r"65 bits are packed into \(n, 2\)"):
        unpack(words, 65)
    with pytest.raises(ValueError, match="bits is 0"):
        unpack(words, 0)
    with pytest.raises(ValueError, match="padding bit 40 set although codes have 40 bits"):
        unpack(words, 40)
