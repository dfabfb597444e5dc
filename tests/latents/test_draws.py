"""Draws are a pure function of their arguments, and uniform."""

import numpy as np
import pytest

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, block_uniforms, uniforms


def test_same_arguments_same_numbers_whatever_was_drawn_between() -> None:
    first = uniforms(7, Purpose.GENERATOR_LATENT, 3, 2, 1000)
    uniforms(8, Purpose.WEIGHTS, 0, 0, 10)
    assert np.array_equal(first, uniforms(7, Purpose.GENERATOR_LATENT, 3, 2, 1000))
    assert np.array_equal(first[:10], uniforms(7, Purpose.GENERATOR_LATENT, 3, 2, 10))


def test_every_argument_changes_every_number() -> None:
    draws = [
        uniforms(7, Purpose.GENERATOR_LATENT, 3, 2, 64),
        uniforms(8, Purpose.GENERATOR_LATENT, 3, 2, 64),
        uniforms(7, Purpose.DISCRIMINATOR_LATENT, 3, 2, 64),
        uniforms(7, Purpose.GENERATOR_LATENT, 4, 2, 64),
        uniforms(7, Purpose.GENERATOR_LATENT, 3, 3, 64),
        uniforms(7, Purpose.GENERATOR_LATENT, 2, 3, 64),
        uniforms(2**64 - 1, Purpose.GENERATOR_LATENT, 2**40, 3, 64),
    ]
    assert len(np.unique(np.concatenate(draws))) == 64 * len(draws)


def test_the_numbers_follow_from_philox_raw_bits() -> None:
    raw = np.random.Philox(key=np.array([5, 3], np.uint64), counter=np.array([0, 0, 11, 2], np.uint64))
    expected = [(2 * (int(bits) >> 12) + 1) / 2**53 for bits in raw.random_raw(20)]
    assert uniforms(5, Purpose.GENERATOR_LATENT, 11, 2, 20).tolist() == expected


def test_published_first_block_of_philox_4x64() -> None:
    # Random123's known answer for Philox4x64-10 with every counter and key bit 0 pins the bit stream itself.
    # NumPy counts before it draws, so the block of counter 0 comes after the largest counter.
    generator = np.random.Philox(key=np.zeros(2, np.uint64), counter=np.full(4, 2**64 - 1, np.uint64))
    assert [int(word) for word in generator.random_raw(4)] == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


def test_purposes_keep_their_numbers() -> None:
    # A checkpointed run continues its draws only if these never move.
    assert [purpose.value for purpose in Purpose] == list(range(1, len(Purpose) + 1))
    assert (Purpose.WEIGHTS, Purpose.DISCRIMINATOR_LATENT, Purpose.EVALUATION) == (1, 2, 7)


def test_uniformity() -> None:
    # Chi-square over 64 equal cells: 63 degrees of freedom, mean 63, deviation 11.2; 110 is p = 0.0002.
    draws = np.concatenate([uniforms(1, Purpose.EVALUATION, step, 0, 1000) for step in range(64)])
    observed, _ = np.histogram(draws, bins=64, range=(0, 1))
    assert ((observed - 1000) ** 2 / 1000).sum() < 110
    # The first numbers of neighbouring steps must not move together: four deviations of a correlation.
    starts = np.array([uniforms(1, Purpose.EVALUATION, step, 0, 2) for step in range(4096)])
    assert abs(np.corrcoef(starts[:-1, 0], starts[1:, 0])[0, 1]) < 4 / np.sqrt(4095)
    assert draws.min() > 0
    assert draws.max() < 1


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match=r"run\.seed"):
        uniforms(seed, Purpose.WEIGHTS, 0, 0, 1)


def test_several_steps_and_streams_at_once_are_each_alone() -> None:
    together = block_uniforms(3, Purpose.DISCRIMINATOR_NOISE, range(2**33, 2**33 + 3), range(5, 9), 37)
    assert together.shape == (3, 4, 37)
    for i in range(3):
        for j in range(4):
            assert np.array_equal(together[i, j], uniforms(3, Purpose.DISCRIMINATOR_NOISE, 2**33 + i, 5 + j, 37))
