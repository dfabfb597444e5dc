"""Settings that follow from the data alone: the networks, batch and length of a run on images of one's own.

They depend on the samples' shape, their number and their labels, and never on the machine, so that a run may move. The
sizes are those of the published presets where there is one: AFHQ and FFHQ at 256², CelebA at 128² (Cho 2025, §4).
"""

from collections.abc import Sequence
from typing import Any

from latentscale.errors import UserError

SIDES = tuple(2**power for power in range(3, 11))
"""Sides of square images for which there are settings, in pixels."""

FEW_IMAGES = 2_000
"""Fewer images are learned by heart by large networks: the networks are half as wide."""

EPOCHS, LEAST_IMAGES, MOST_IMAGES = 100, 256_000, 5_000_000
"""How often every image is shown, and limits of how many are shown in all."""

_MNIST_SIDE = 28
_CATEGORICAL = ("categorical_infogan", "elastic_infogan", "cgpgan")
_MOST_CATEGORIES = 64


def automatic_settings(
    name: str, shape: Sequence[int], images: int, labels: int, method: str, any_shape: bool = False
) -> dict[str, Any]:
    """The settings of a run, as dotted keys and values.

    Args:
        name: of the dataset, for messages.
        shape: of a sample, (C, H, W) or (D,).
        images: number of training samples.
        labels: number of labels; 0 without.
        method: name of the method.
        any_shape: the user chooses the networks, so that their samples may have any shape.

    Raises:
        UserError: there are no networks for samples of this shape.
    """
    if len(shape) == 1:
        chosen = _points()
    else:
        side = _side(name, shape, any_shape)
        chosen = _digits28() if side == _MNIST_SIDE else _images(side, images)
    batch, streams = chosen["training.batch"], chosen["distributed.streams"]
    if method == "invgan":
        # MMD² needs several samples per stream
        batch, streams = max(32, batch), 4
    while streams > max(1, images):
        streams //= 2
    steps = round(min(max(EPOCHS * images, LEAST_IMAGES), MOST_IMAGES) / batch)
    chosen |= {
        "data.shape": list(shape),
        "training.batch": batch,
        "training.steps": steps,
        "distributed.streams": streams,
        "optimizer.name": "adam",
        "optimizer.beta1": 0.0,
        "optimizer.beta2": 0.99,
        "checkpoint.every_steps": max(100, steps // 100),
        "snapshot.every_steps": max(100, steps // 100),
    }
    if method in _CATEGORICAL:
        chosen["latent.categories"] = [labels if 2 <= labels <= _MOST_CATEGORIES else 10]
        chosen["method.prior_start_step"] = steps // 3
    if method == "cgpgan":
        # a penalty on fakes only, because only their labels are known
        chosen |= {"method.r1": 0.0, "method.r2": chosen["method.r1"]}
    return chosen


def describe(shape: Sequence[int], images: int, settings: dict[str, Any]) -> str:
    """Which settings were chosen, and by what, in a line."""
    size = "x".join(map(str, shape[1:])) + " pixels" if len(shape) == 3 else f"{shape[0]} coordinates"
    widths = [
        *settings["network.widths"],
        *([settings["network.base_width"]] if "network.base_width" in settings else []),
    ]
    few = (
        f", half as wide because there are fewer than {FEW_IMAGES:,}" if len(shape) == 3 and images < FEW_IMAGES else ""
    )
    return (
        f"settings for {images:,} samples of {size}: {settings['network.family']} networks of widths"
        f" {', '.join(map(str, widths))}{few}; batch {settings['training.batch']},"
        f" {settings['training.steps']:,} steps; any key=value and preset=NAME win"
    )


def require_side(resolution: int) -> None:
    """Refuse a side of images for which there are no settings, before images are built into shards of it.

    Raises:
        UserError: naming ``data.resolution``.
    """
    if resolution not in (*SIDES, _MNIST_SIDE):
        raise UserError(
            f"data.resolution={resolution}: there are settings for squares of {_sides()} pixels: choose one of these,"
            " or network.family or preset"
        )


def _sides() -> str:
    return ", ".join(map(str, sorted((*SIDES, _MNIST_SIDE))))


def _side(name: str, shape: Sequence[int], any_shape: bool) -> int:
    height, width = shape[1:]
    if height == width and height in (*SIDES, _MNIST_SIDE):
        return height
    if any_shape:
        return next((side for side in SIDES if side >= max(height, width)), SIDES[-1])
    raise UserError(
        f"{name} holds images of {height}x{width} pixels, and there are settings for squares of {_sides()} pixels:"
        " build them with --resolution 64 or another of these, or choose network.family or preset"
    )


def _images(side: int, images: int) -> dict[str, Any]:
    widest = min(512, 8 * side) // (2 if images < FEW_IMAGES else 1)
    # half of it at the finest side, and no more than 2^14 features per row of pixels
    sides = [side >> place for place in range(side.bit_length() - 3)]
    widths = [min(widest, widest // 2 * (side // each), 16384 // each) for each in sides]
    batch = 32 if side <= 32 else 16 if side <= 128 else 8
    return {
        "latent.dim": 128 if side <= 32 else 512 if side <= 128 else 1024,
        "network.family": "residual",
        "network.widths": widths,
        "network.base_width": widest,
        "method.r1": 0.1 if side <= 8 else 1.0 if side <= 128 else 3.0,
        **({"method.reconstruction_weight": 10.0} if side <= 16 else {}),
        "optimizer.learning_rate": 0.003,
        "training.batch": batch,
        "distributed.streams": 8 if batch > 8 else 4,
    }


def _digits28() -> dict[str, Any]:
    return {
        "latent.dim": 128,
        "network.family": "dcgan",
        "network.widths": [64, 128],
        "method.r1": 1.0,
        "optimizer.learning_rate": 0.001,
        "training.batch": 64,
        "distributed.streams": 8,
    }


def _points() -> dict[str, Any]:
    return {
        "latent.dim": 64,
        "network.family": "mlp",
        "network.widths": [128, 128, 128],
        "method.r1": 1.0,
        "optimizer.learning_rate": 0.001,
        "training.batch": 64,
        "distributed.streams": 8,
    }
