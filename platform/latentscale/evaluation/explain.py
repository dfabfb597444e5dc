"""A report in words, from what each metric declares about itself."""

import math
from collections.abc import Iterable

from latentscale.evaluation.metric import Direction, Metric, Report
from latentscale.evaluation.registry import METRICS


def explain(report: Report, metrics: Iterable[Metric] = METRICS.values()) -> list[str]:
    """What the numbers of a report mean, one line for each metric, for people who meet them first."""
    metrics = list(metrics)
    measured = [metric for metric in metrics if any(report.get(key) is not None for key in metric.keys)]
    met = {need for metric in measured for need in metric.needs}
    lines = []
    for metric in metrics:
        values = [report.get(key) for key in metric.keys]
        if all(value is not None and not math.isnan(value) for value in values):
            lines.append(_line(metric, report))
        elif metric not in measured and metric.minimum_pixels > 1 and metric.needs <= met:
            side = metric.minimum_pixels
            lines.append(f"{metric.name} not measured: it needs images of at least {side}x{side} pixels")
    undefined = [key for key, value in report.items() if value is not None and math.isnan(value)]
    if undefined:
        lines.append(
            f"{', '.join(undefined)}: NaN (not a number), because the networks returned NaN; the training has diverged"
        )
    return lines


def _line(metric: Metric, report: Report) -> str:
    texts = {key: str(value) for key, value in report.items()}
    for figure in metric.figures:
        value = report[figure.key]
        assert value is not None
        texts[figure.key] = figure.text(value)
    first = metric.figures[0]
    parts = [f"{metric.shown.format_map(texts)}: {metric.description}"]
    if first.direction is not Direction.NEITHER:
        parts.append(first.direction)
    if metric.verdict is not None:
        number = report[first.key]
        assert number is not None
        parts.append(metric.verdict(number))
    return "; ".join(parts)
