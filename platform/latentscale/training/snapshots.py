"""Pictures of the model during a run: samples, reconstructions and sweeps, always from the same draws."""

from pathlib import Path
from statistics import NormalDist

import torch
from PIL import Image
from torch import Tensor

from latentscale.evaluation.metrics.psnr import psnr_db, squared_error_per_image
from latentscale.inversion.trained_model import TrainedModel
from latentscale.latents.draws import Purpose
from latentscale.pictures import (
    PointCloud,
    Row,
    RowGroup,
    columns_that_fit,
    draw_grid,
    draw_scatter,
    paired_rows,
    save_png,
)

BATCH_IMAGES = 16
SAMPLE_ROWS = 6
PAIRS_IMAGES = 24
POINTS = 1000
SWEPT_DIMENSIONS = 8
SHOWN_CATEGORIES = 16
SWEEP_DEVIATIONS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)


@torch.no_grad()
def write_snapshots(
    model: TrainedModel, reals: Tensor, step: int, images_seen: int, folder: Path, seed: int
) -> list[Path]:
    """Draw what the model can do at this step, one PNG file for each kind; existing files are replaced.

    - ``samples-…``: generated from fixed latents.
    - ``reconstructions-…``: reals over G(E(x)∘s), with their PSNR (images; range 2).
    - ``fakes-…``: generated images over the same, encoded and generated again.
    - ``sweeps-…``: one row for each of the dimensions of largest scale. Along the columns that element of a fixed
      latent takes the prior's quantiles at −2 … 2 standard normal deviations (Cho 2025, figs. 23–25). The latent is
      drawn from the prior, and goes through the mapping network if there is one.
    - ``categories-…``: if the generator takes categories, the same latents with one category in each row.

    Methods without an encoder get no reconstructions, and methods without a generator only those of real samples.
    Models of points get scatter plots of the first two coordinates. File names end in the nine-digit step, so that they
    sort by step.

    Args:
        model: with the averaged weights.
        reals: fixed real samples ``[n, *shape]``, floats, images in [-1, 1]; the first few are shown.
        step: training steps taken.
        images_seen: real images seen.
        folder: where the files go; created if missing.
        seed: the run's.

    Returns:
        The files written.
    """
    subtitle = f"{model.method.name}, step {step:,}, {images_seen:,} images seen"
    draw = _draw_images if model.makes_images else _draw_points
    pictures = draw(model, reals, seed, subtitle)
    return [save_png(picture, folder / f"{kind}-{step:09d}.png") for kind, picture in pictures.items()]


def _draw_images(model: TrainedModel, reals: Tensor, seed: int, subtitle: str) -> dict[str, Image.Image]:
    columns = columns_that_fit(*model.shape[1:])
    pictures: dict[str, Image.Image] = {}
    samples = torch.empty(0)
    if model.can_generate:
        latents, categories = _drawn(model, SAMPLE_ROWS * columns, seed)
        samples = _decode(model, latents, categories)
        rows = [Row("", images) for images in samples.split(columns)]
        pictures["samples"] = draw_grid([RowGroup(rows)], "Generated from fixed latents", subtitle)
        if categories is not None:
            pictures["categories"] = _categories(model, latents[:columns], categories[:columns], subtitle)
    if model.can_invert:
        reals = reals[:PAIRS_IMAGES].cpu()
        again = _reconstruct(model, reals)
        pictures["reconstructions"] = draw_grid(
            paired_rows("real", reals, "reconstructed", again),
            f"Real images and their reconstructions, {_psnr_db(reals, again):.1f} dB",
            subtitle,
        )
        if model.can_generate:
            fakes = samples[:PAIRS_IMAGES]
            again = _reconstruct(model, fakes)
            pictures["fakes"] = draw_grid(
                paired_rows("generated", fakes, "reconstructed", again),
                f"Generated images and their reconstructions, {_psnr_db(fakes, again):.1f} dB",
                subtitle,
            )
    if not model.can_generate:
        return pictures
    dimensions, values, swept = _sweeps(model, seed)
    categories = None if categories is None else categories[:1].expand(len(swept), -1)
    rows = [
        Row(f"z[{dimension}], s = {model.scale[dimension]:.2f}", images)
        for dimension, images in zip(dimensions, _decode(model, swept, categories).split(len(values)), strict=True)
    ]
    pictures["sweeps"] = draw_grid(
        [RowGroup(rows, [f"z = {value:+.2f}" for value in values])],
        "One latent element at a time, those of largest scale",
        subtitle,
    )
    return pictures


def _draw_points(model: TrainedModel, reals: Tensor, seed: int, subtitle: str) -> dict[str, Image.Image]:
    latents, categories = _drawn(model, POINTS, seed)
    reals = reals[:POINTS].cpu()
    samples = _decode(model, latents, categories)
    real, generated = PointCloud("real", _plane(reals)), PointCloud("generated", _plane(samples))
    pictures = {"samples": draw_scatter([real, generated], "Real and generated points", subtitle)}
    if categories is not None:
        first = categories[:, : model.categories[0]].argmax(dim=1)
        clouds = [PointCloud(f"category {index}", _plane(samples[first == index])) for index in first.unique().tolist()]
        pictures["categories"] = draw_scatter(clouds, "Generated points by their category", subtitle)
    if model.can_invert:
        again = PointCloud("reconstructed", _plane(_reconstruct(model, reals)))
        pictures["reconstructions"] = draw_scatter(
            [real, again], "Real points and their reconstructions", subtitle, connected=[(0, 1)]
        )
        again = PointCloud("reconstructed", _plane(_reconstruct(model, samples)))
        pictures["fakes"] = draw_scatter(
            [generated, again], "Generated points and their reconstructions", subtitle, connected=[(0, 1)]
        )
    dimensions, values, swept = _sweeps(model, seed)
    categories = None if categories is None else categories[:1].expand(len(swept), -1)
    clouds = [
        PointCloud(f"z[{dimension}], s = {model.scale[dimension]:.2f}", _plane(points))
        for dimension, points in zip(dimensions, _decode(model, swept, categories).split(len(values)), strict=True)
    ]
    pictures["sweeps"] = draw_scatter(
        [real, *clouds[:3]], "One latent element at a time, those of largest scale", subtitle
    )
    return pictures


def _drawn(model: TrainedModel, count: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """Fixed latents, as the decoder takes them, and categories where it takes some."""
    drawn = model.draw_latents(count, seed, Purpose.SNAPSHOT)
    return model.map_latent(drawn).cpu(), model.draw_categories(count, seed, Purpose.SNAPSHOT)


def _categories(model: TrainedModel, latents: Tensor, categories: Tensor, subtitle: str) -> Image.Image:
    """The same latents down the columns, another category of the first label in every row, by falling P(C)."""
    size = model.categories[0]
    prior = model.method.latent_state()["category_prior"][:size].cpu()
    rows = []
    for index in prior.argsort(descending=True, stable=True)[:SHOWN_CATEGORIES].tolist():
        chosen = categories.clone()
        chosen[:, :size] = 0
        chosen[:, index] = 1
        rows.append(Row(f"category {index}, P = {prior[index]:.3f}", _decode(model, latents, chosen)))
    return draw_grid([RowGroup(rows)], "One category per row, the same latents in every row", subtitle)


def _decode(model: TrainedModel, latents: Tensor, categories: Tensor | None = None) -> Tensor:
    parts = [None] * len(latents) if categories is None else categories.split(BATCH_IMAGES)
    samples = torch.cat(
        [
            model.decode(batch, category).float().cpu()
            for batch, category in zip(latents.split(BATCH_IMAGES), parts, strict=False)
        ]
    )
    return samples.clamp(-1.0, 1.0) if model.makes_images else samples


def _reconstruct(model: TrainedModel, samples: Tensor) -> Tensor:
    return _decode(model, torch.cat([model.encode(batch) for batch in samples.split(BATCH_IMAGES)]))


def _psnr_db(images: Tensor, others: Tensor) -> float:
    return psnr_db(squared_error_per_image(images, others).mean()).item()


def _sweeps(model: TrainedModel, seed: int) -> tuple[list[int], list[float], Tensor]:
    """The dimensions of largest scale, the values each is swept through, and the decoder's latents row by row."""
    latent = model.draw_latents(1, seed, Purpose.SNAPSHOT)[0]
    scale = model.scale.cpu()
    # Stable, so that equal scales keep the same dimensions from one snapshot to the next.
    order = torch.sort(scale, descending=True, stable=True).indices
    dimensions = [int(index) for index in order[:SWEPT_DIMENSIONS]]
    levels = torch.tensor([NormalDist().cdf(deviation) for deviation in SWEEP_DEVIATIONS], dtype=torch.float64)
    values = model.prior.quantile(levels)
    swept = latent.repeat(len(dimensions), len(values), 1)
    for row, dimension in enumerate(dimensions):
        swept[row, :, dimension] = values
    return dimensions, values.tolist(), model.map_latent(swept.flatten(0, 1)).cpu()


def _plane(points: Tensor) -> Tensor:
    """The first two coordinates; points on a line get a second one of 0."""
    if points.shape[1] == 1:
        return torch.cat([points, torch.zeros_like(points)], dim=1)
    return points[:, :2]
