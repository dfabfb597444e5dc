"""What metrics share: real and generated samples in batches, and what the networks make of them.

Everything of a batch is computed when a metric first asks for it, and once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from latentscale.inversion.image_input import from_uint8
from latentscale.inversion.trained_model import TrainedModel
from latentscale.latents.draws import Purpose

Extractor = Callable[[Tensor], Tensor]
"""Samples ``[b, *shape]``, images in [-1, 1], to features ``[b, F]``."""

Result = TypeVar("Result")
BatchKind = TypeVar("BatchKind")


@dataclass
class RealBatch:
    """b real samples.

    Attributes:
        model: whose networks are used.
        samples: ``[b, *shape]`` on the model's device, images in [-1, 1].
        known_labels: ``[b, d_l]`` int64 on the CPU, where there are any.
        extractor: of the features, where there is one.
    """

    model: TrainedModel
    samples: Tensor
    known_labels: Tensor | None
    extractor: Extractor | None

    @property
    def labels(self) -> Tensor:
        """``[b, d_l]`` int64 categories on the CPU; for metrics that need labels."""
        return _present(self.known_labels, "labels")

    @cached_property
    def encoded(self) -> Tensor:
        """E(x), ``[b, d_z]`` unscaled."""
        return self.model.encode(self.samples)

    @cached_property
    def reconstructions(self) -> Tensor:
        """G(E(x)∘s), ``[b, *shape]``, images clipped to [-1, 1]."""
        return clipped(self.model, self.model.decode(self.encoded))

    @cached_property
    def features(self) -> Tensor:
        """Of the samples, ``[b, F]``; for metrics that need features."""
        return _present(self.extractor, "features")(self.samples)


@dataclass
class FakeBatch:
    """b generated samples.

    Attributes:
        model: whose networks are used.
        drawn: ``[b, d_z]`` latents of the prior, float64 on the CPU.
        categories: ``[b, Σ d_c]`` one-hots drawn from P(C), None where the generator takes none.
        extractor: of the features, where there is one.
    """

    model: TrainedModel
    drawn: Tensor
    categories: Tensor | None
    extractor: Extractor | None

    @cached_property
    def latents(self) -> Tensor:
        """``[b, d_z]`` unscaled, as the encoder should predict them."""
        return self.model.map_latent(self.drawn)

    @cached_property
    def samples(self) -> Tensor:
        """G(z∘s), ``[b, *shape]``, not clipped."""
        return self.model.decode(self.latents, self.categories)

    @cached_property
    def encoded(self) -> Tensor:
        """E(G(z∘s)), ``[b, d_z]`` unscaled; G's samples go into E as in training, not clipped."""
        return self.model.encode(self.samples)

    @cached_property
    def features(self) -> Tensor:
        """Of the samples, images clipped to [-1, 1], ``[b, F]``; for metrics that need features."""
        return _present(self.extractor, "features")(clipped(self.model, self.samples))


@dataclass
class Samples:
    """All samples of one evaluation.

    Attributes:
        model: with its averaged weights.
        reals: ``[n, *shape]``, floats with images in [-1, 1], or uint8 in [0, 255].
        seed: of the fresh latents.
        fresh_draws: how many of them.
        labels: ``[n, d_l]`` int64 categories of the reals on the CPU, where they are known.
        extractor: of features, where there is one.
        batch_images: samples that go through a network at once.
    """

    model: TrainedModel
    reals: Tensor
    seed: int
    fresh_draws: int
    labels: Tensor | None
    extractor: Extractor | None
    batch_images: int
    _rows: dict[Callable[..., Tensor], Tensor] = field(default_factory=dict)
    _once: dict[Callable[..., Any], Any] = field(default_factory=dict)

    def real_batches(self) -> Iterator[RealBatch]:
        """The real samples in their order."""
        model = self.model
        labels = None if self.labels is None else self.labels.split(self.batch_images)
        for index, batch in enumerate(self.reals.split(self.batch_images)):
            samples = as_floats(batch).to(model.device, model.dtype)
            yield RealBatch(model, samples, None if labels is None else labels[index], self.extractor)

    def fake_batches(self) -> Iterator[FakeBatch]:
        """The generated samples in the order of their draws."""
        drawn = self.model.draw_latents(self.fresh_draws, self.seed, Purpose.EVALUATION).split(self.batch_images)
        categories = self.model.draw_categories(self.fresh_draws, self.seed, Purpose.EVALUATION)
        parts = None if categories is None else categories.split(self.batch_images)
        for index, batch in enumerate(drawn):
            yield FakeBatch(self.model, batch, None if parts is None else parts[index], self.extractor)

    def compute_rows(
        self, per_real: Iterable[Callable[[RealBatch], Tensor]], per_fake: Iterable[Callable[[FakeBatch], Tensor]]
    ) -> None:
        """Make all rows: one pass over the real samples and one over the generated ones, each only if it is needed."""
        self._rows |= _stacked(list(dict.fromkeys(per_fake)), self.fake_batches())
        self._rows |= _stacked(list(dict.fromkeys(per_real)), self.real_batches())

    def rows(self, function: Callable[[Any], Tensor]) -> Tensor:
        """``[n, …]`` on the CPU: what a function of batches gave, for all samples in their order.

        Raises:
            KeyError: for a function that is in no metric's ``per_real`` or ``per_fake``.
        """
        return self._rows[function]

    def once(self, function: Callable[["Samples"], Result]) -> Result:
        """A function of all samples that several metrics use, computed for the first of them."""
        if function not in self._once:
            self._once[function] = function(self)
        found: Result = self._once[function]
        return found


def as_floats(images: Tensor) -> Tensor:
    """uint8 images in [0, 255] to floats in [-1, 1]; floats stay as they are."""
    return from_uint8(images) if images.dtype == torch.uint8 else images


def clipped(model: TrainedModel, samples: Tensor) -> Tensor:
    """Images clipped to [-1, 1]; points stay as they are."""
    return samples.clamp(-1.0, 1.0) if model.makes_images else samples


def _stacked(
    functions: list[Callable[[BatchKind], Tensor]], batches: Iterator[BatchKind]
) -> dict[Callable[..., Tensor], Tensor]:
    if not functions:
        return {}
    parts: dict[Callable[..., Tensor], list[Tensor]] = {function: [] for function in functions}
    for batch in batches:
        for function in functions:
            parts[function].append(function(batch).cpu())
    return {function: torch.cat(found) for function, found in parts.items()}


def _present(given: Result | None, need: str) -> Result:
    if given is None:
        raise ValueError(f"this evaluation has no {need}: a metric that uses them must declare it among its needs")
    return given
