"""Every random number of a run, as a pure function of (seed, purpose, step, stream).

The bits come from the counter-based generator Philox 4×64 (Salmon et al. 2011), whose raw output NumPy keeps
stable over versions; there is no generator state to save. Laws other than the uniform are reached by quantile
functions (`latentscale.latents.priors`), in float64 on the CPU, and cast only afterwards, so that runs in
different precisions and on different devices see the same draws.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError

_WORD = 1 << 64


class Purpose(IntEnum):
    """What a draw is for. Numbers are part of a run's identity: add new ones, never renumber."""

    WEIGHTS = 1
    DISCRIMINATOR_LATENT = 2
    GENERATOR_LATENT = 3
    ORDER_SHARDS = 4
    ORDER_WINDOW = 5
    SNAPSHOT = 6
    EVALUATION = 7
    DISCRIMINATOR_NOISE = 8
    GENERATOR_NOISE = 9
    DISCRIMINATOR_CATEGORY = 10
    GENERATOR_CATEGORY = 11
    AUGMENTATION = 12
    RECOVERY = 13
    SYNTHETIC_DATA = 14
    CONTRASTIVE_VIEW = 15
    RESAMPLING = 16
    PATCHES = 17
    BUILD_ORDER = 18
    SPLIT = 19
    HORIZONTAL_FLIP = 20
    SUBSTITUTE_SAMPLE = 21
    STREAMING = 22


def uniforms(seed: int, purpose: Purpose, step: int, stream: int, count: int) -> NDArray[np.float64]:
    """``count`` independent uniforms strictly inside (0, 1), ``[count]`` float64.

    The same arguments give the same numbers on every call, and a longer draw begins with the shorter one.
    Each number is (k + ½)·2⁻⁵² for 52 random bits k: exact in float64, symmetric about ½ and never 0 or 1,
    where a quantile function may be infinite (with 53 bits the largest value would round to 1).

    Args:
        seed: of the run, 0 ≤ seed < 2⁶⁴.
        purpose: separates draws of the same step and stream.
        step: the training step, or any other non-negative number that the purpose counts by.
        stream: the stream within the step, or any other non-negative number.
        count: how many.

    Raises:
        UserError: if the seed is outside its range.
    """
    return block_uniforms(seed, purpose, range(step, step + 1), range(stream, stream + 1), count)[0, 0]


def block_uniforms(seed: int, purpose: Purpose, steps: range, streams: range, count: int) -> NDArray[np.float64]:
    """What :func:`uniforms` gives for each of several steps and streams, at a fraction of the cost.

    Returns:
        ``[len(steps), len(streams), count]``.

    Raises:
        UserError: if the seed is outside its range.
    """
    if not 0 <= seed < _WORD:
        raise UserError(f"run.seed={seed} is not allowed: it must be >= 0 and < 2**64")
    generator = np.random.Philox(key=np.array([seed, int(purpose)], dtype=np.uint64))
    # setting the counter takes a quarter of the time of building a generator
    state: Any = generator.state
    counter = state["state"]["counter"]
    bits = np.empty((len(steps), len(streams), count), dtype=np.uint64)
    for i, step in enumerate(steps):
        for j, stream in enumerate(streams):
            # Philox counts blocks of one draw in the low words, so the high words keep draws apart
            counter[:] = (0, 0, step, stream)
            generator.state = state
            bits[i, j] = generator.random_raw(count)
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def permutation(seed: int, purpose: Purpose, epoch: int, window: int, size: int) -> NDArray[np.int64]:
    """A permutation ``[size]`` of 0 … size−1 that depends on nothing but the arguments.

    It sorts raw Philox words instead of calling ``Generator.permutation``, whose algorithm may change between
    numpy versions; a resumed run must find the order it left.
    """
    words = np.random.Philox(
        key=np.array([seed, purpose], dtype=np.uint64),
        counter=np.array([0, 0, epoch, window], dtype=np.uint64),
    ).random_raw(size)
    return np.argsort(words, kind="stable")
