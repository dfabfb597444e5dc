"""The divergence check: any bit counts, and the rank in the minority is named."""

import pytest
import torch

from latentscale.distributed.fingerprint import differing_ranks, fingerprint


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 5, generator=generator),
        torch.randn(7, generator=generator, dtype=torch.float64),
        torch.tensor(2.0),
        torch.randn(4, generator=generator).to(torch.bfloat16),
        torch.randn(2, 6, generator=generator).t(),
    ]


def test_equal_bits_have_equal_fingerprints() -> None:
    assert torch.equal(fingerprint(tensors()), fingerprint(tensors()))


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("bit", [0, 7, 15])
def test_any_one_bit_changes_the_fingerprint(which: int, bit: int) -> None:
    changed = [tensor.contiguous().clone() for tensor in tensors()]
    words = changed[which].view({8: torch.int64, 4: torch.int32, 2: torch.int16}[changed[which].element_size()])
    words.view(-1)[-1] ^= torch.tensor(1 << bit, dtype=torch.int64).to(words.dtype)
    assert not torch.equal(fingerprint(changed), fingerprint(tensors()))


def test_values_that_moved_from_one_tensor_to_another_change_the_fingerprint() -> None:
    a, b = torch.ones(3), torch.zeros(3)
    assert not torch.equal(fingerprint([a, b]), fingerprint([b, a]))


def test_by_hand() -> None:
    # bits 1 and 2 as integers; weights (2i + 1) · m
    m = 0x9E3779B97F4A7C15 - 2**64
    ones, twos = torch.tensor([1, 1], dtype=torch.int32), torch.tensor([2], dtype=torch.int32)
    expected = (2 * m + 2 * 3 * m + 2**63) % 2**64 - 2**63
    assert fingerprint([ones.view(torch.float32), twos.view(torch.float32)]).item() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5, 5, 5], []), ([5, 5, 6], [2]), ([6, 5, 5], [0]), ([5, 6], [1]), ([1, 2, 2, 3], [0, 3])],
)
def test_the_minority_is_named(values: list[int], expected: list[int]) -> None:
    assert differing_ranks(values) == expected
