"""What a metric is: a declaration and plain functions.

A metric says which tensors it wants of each batch of samples (``per_real``, ``per_fake``: one row a sample), and makes
its figures of all rows together (``measure``). `latentscale.evaluation.evaluate` calls the networks once per batch for
all metrics. Rows stand in the order of the samples, so that a figure depends, up to rounding, neither on how they were
cut into batches nor on which process computed them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from latentscale.evaluation.samples import FakeBatch, RealBatch, Samples

Value = float | int | None
Report = dict[str, Value]


class Need(StrEnum):
    """What a metric needs of the model, of the data or of the evaluation."""

    GENERATION = "generation"
    """Latents drawn from the prior become samples."""
    INVERSION = "inversion"
    """There is an encoder, and something that decodes its latents."""
    CLASSIFICATION = "classification"
    """The model predicts labels."""
    LATENT_VARIANCE = "latent variance"
    """The model keeps the running variance v of its latents."""
    IMAGES = "images"
    """Samples are images, not points."""
    LABELS = "labels"
    """Every real sample has its label."""
    FEATURES = "features"
    """The evaluation was given a feature extractor."""


OPTIONAL = frozenset({Need.LABELS, Need.FEATURES})
"""What most evaluations do not have: figures that need it are left out of a report rather than listed without value."""


class Direction(StrEnum):
    """Which values of a figure are good."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    NEITHER = "neither is better"


@dataclass(frozen=True)
class Figure:
    """One number of a metric.

    Attributes:
        key: its name in reports, unique among all metrics; ``evaluation/KEY`` in metrics.jsonl.
        direction: which values are good.
        unit: empty for a number without unit.
        format: of the printed value, a format specification such as ``.2f``.
    """

    key: str
    direction: Direction
    unit: str = ""
    format: str = ".3f"

    def text(self, value: float) -> str:
        """A value with its unit, as printed."""
        return f"{value:{self.format}} {self.unit}".rstrip()


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: unique, as listed by ``latentscale metrics``.
        description: one line that says what the figures tell, in words for people who meet them first.
        source: author, year and equation.
        figures: what ``measure`` returns; the first one's direction is printed.
        needs: where one of these is missing, the metric does not apply.
        measure: all samples to a value for each figure. It uses ``samples.rows(function)`` of the functions in
            ``per_real`` and ``per_fake``, and calls no network itself.
        shown: the beginning of the printed line, a format string of the figures' keys and of ``real_images``,
            ``fresh_draws`` and ``latent_dimensions``.
        per_real: functions of a batch of b real samples to a tensor ``[b, …]`` that ``measure`` uses.
        per_fake: the same of a batch of generated samples.
        minimum_pixels: images whose shorter side is below it are not measured.
        verdict: the first figure's value to what it says about the model, printed at the end of the line.
    """

    name: str
    description: str
    source: str
    figures: tuple[Figure, ...]
    needs: frozenset[Need]
    measure: Callable[[Samples], Mapping[str, float]]
    shown: str
    per_real: tuple[Callable[[RealBatch], Tensor], ...] = ()
    per_fake: tuple[Callable[[FakeBatch], Tensor], ...] = ()
    minimum_pixels: int = 1
    verdict: Callable[[float], str] | None = None

    @property
    def keys(self) -> list[str]:
        """The keys of its figures."""
        return [figure.key for figure in self.figures]

    @property
    def sorted_needs(self) -> list[Need]:
        """What it needs, in the order of `Need`."""
        return [need for need in Need if need in self.needs]
