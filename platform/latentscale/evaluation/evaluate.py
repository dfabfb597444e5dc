"""Measure a model by every metric that applies to it: one pass over real samples, one over generated ones."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.evaluation.metric import OPTIONAL, Metric, Need, Report
from latentscale.evaluation.registry import METRICS
from latentscale.evaluation.samples import Extractor, Samples
from latentscale.inversion.trained_model import TrainedModel


@torch.no_grad()
def evaluate(
    model: TrainedModel,
    reals: Tensor,
    seed: int,
    fresh_draws: int = 1000,
    *,
    labels: Callable[[], Tensor | None] | None = None,
    extractor: Extractor | None = None,
    batch_images: int = 64,
    metrics: Iterable[Metric] = METRICS.values(),
) -> Report:
    """Measure a model.

    Args:
        model: with its averaged weights.
        reals: reference samples ``[n, *shape]``, n >= 2; images as floats in [-1, 1] or uint8 in [0, 255]. Best are
            samples that training never saw.
        seed: of the fresh latents.
        fresh_draws: how many latents are drawn.
        labels: gives the ``[n, d_l]`` int64 categories of the reals, or None where they are unknown; called only if a
            metric uses them.
        extractor: of the features that some metrics compare.
        batch_images: samples that go through a network at once.
        metrics: in the order of the report.

    Returns:
        ``real_images``, ``fresh_draws`` and ``latent_dimensions`` (counts; no draws are made if no metric uses them),
        and every figure by its key: None where its metric does not apply to this model, left out where it needs labels
        or features that are not there.

    Raises:
        UserError: reference samples that do not fit the model, or labels that do not fit the samples.
    """
    if tuple(reals.shape[1:]) != model.shape or len(reals) < 2:
        raise UserError(
            f"reference samples have shape {list(reals.shape)}, but the model takes [n, "
            f"{', '.join(map(str, model.shape))}] with n >= 2"
        )
    metrics = list(metrics)
    met = met_by(model) | ({Need.FEATURES} if extractor else set())
    wants_labels = any(metric.needs - met == {Need.LABELS} for metric in metrics)
    known_labels = labels() if labels and wants_labels else None
    if known_labels is not None:
        if known_labels.dim() != 2 or len(known_labels) != len(reals):
            raise UserError(
                f"labels have shape {list(known_labels.shape)}, but {len(reals)} reference samples need"
                f" [{len(reals)}, d_l]"
            )
        met |= {Need.LABELS}
    applicable = [metric for metric in metrics if metric.needs <= met and _large_enough(model, metric)]

    samples = Samples(model, reals, seed, fresh_draws, known_labels, extractor, batch_images)
    per_fake = [function for metric in applicable for function in metric.per_fake]
    samples.compute_rows([function for metric in applicable for function in metric.per_real], per_fake)
    report: Report = {
        "real_images": len(reals),
        "fresh_draws": fresh_draws if per_fake else 0,
        "latent_dimensions": model.latent_dim,
    }
    for metric in metrics:
        if metric in applicable:
            values = metric.measure(samples)
            if set(values) != set(metric.keys):
                raise ValueError(f"metric {metric.name} declares {metric.keys}, but measured {list(values)}")
            report |= {key: values[key] for key in metric.keys}
        elif not metric.needs & OPTIONAL:
            report |= dict.fromkeys(metric.keys)
    return report


def met_by(model: TrainedModel) -> frozenset[Need]:
    """The needs that a model meets by itself."""
    has = {
        Need.GENERATION: model.can_generate,
        Need.INVERSION: model.can_invert,
        Need.CLASSIFICATION: model.method.classifies,
        Need.LATENT_VARIANCE: model.variance is not None,
        Need.IMAGES: model.makes_images,
    }
    return frozenset(need for need, there in has.items() if there)


def _large_enough(model: TrainedModel, metric: Metric) -> bool:
    return not model.makes_images or min(model.shape[1:]) >= metric.minimum_pixels
