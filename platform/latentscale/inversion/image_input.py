"""Converts image files and arrays to the float tensors in [-1, 1] that a model takes."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from latentscale.decoding.image_conversion import centre_crop, eight_bit_grey
from latentscale.errors import UserError
from latentscale.inversion.tensor_input import as_tensor, check_float
from latentscale.sources.file_tree import walk

RANGE_TOLERANCE = 1e-3
"""Float images may exceed [-1, 1] by this much, so that rounding in a resize or in bf16 is not an error."""

PILLOW_MODES = {1: "L", 3: "RGB"}

ImageLike = Tensor | np.ndarray | Image.Image | str | os.PathLike[str] | Sequence[Any]


class UnreadableImage(UserError):
    """A file or picture from which no image can be read; others can."""


class LoadedImages(NamedTuple):
    """Images read from files.

    Attributes:
        images: uint8 ``[n, C, H, W]``.
        names: the n files, as the caller gave them.
        notes: a line for every image that was converted, cropped or resized; empty if none was.
    """

    images: Tensor
    names: list[str]
    notes: list[str]


class FoundImages(NamedTuple):
    """Image files.

    Attributes:
        files: the image files.
        notes: lines about other files in the folders.
    """

    files: list[Path]
    notes: list[str]


def image_files(paths: Sequence[Path | str]) -> FoundImages:
    """Expand a user's arguments: files are kept as given, folders are searched recursively in sorted order.

    The images of a folder are those that ``latentscale shards build folder`` takes. Hidden files and folders are left
    out.

    Raises:
        UserError: naming a path that does not exist, a folder that cannot be read, or one without images.
    """
    files: list[Path] = []
    notes: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            tree = walk(path)
            if tree.problems:
                raise UserError(f"{path}: {tree.problems[0]}")
            if not tree.items:
                raise UserError(f"{path} contains no images: give image files, or a folder of images")
            files += [path / item.name for item in tree.items]
            notes += [f"{path}: {note}" for note in tree.notes(labels=False)]
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"{path} does not exist: give image files, or folders of images")
    return FoundImages(files, notes)


def load_images(
    sources: Sequence[Image.Image | str | os.PathLike[str]], shape: tuple[int, ...], skip_damaged: bool = False
) -> LoadedImages:
    """Read images and fit each to the model.

    The steps are, in this order: rotate as EXIF says; composite transparent images over white; convert to the model's
    mode (1 channel: grey, 3 channels: RGB); crop the largest centred area of the model's aspect ratio; resize with
    Pillow's antialiased Lanczos filter. Only the first frame of an animation is read.

    Args:
        sources: files or open Pillow images.
        shape: (C, H, W) of the model.
        skip_damaged: leave out files that cannot be read, with a note each.

    Raises:
        UserError: naming a file that cannot be read unless these are left out, or if the model's samples are not grey
            or RGB images.
    """
    if len(shape) != 3 or shape[0] not in PILLOW_MODES:
        raise UserError(
            f"the model's samples have shape {list(shape)}, and image files can be read only for models with 1 or "
            "3 channels: give tensors instead"
        )
    images, names, notes = [], [], []
    for index, source in enumerate(sources):
        try:
            if isinstance(source, Image.Image):
                name = str(getattr(source, "filename", "")) or f"image {index}"
                image, changes = _fit(source, name, shape)
            else:
                name = os.fspath(source)
                image, changes = _fit(_open(Path(source)), name, shape)
        except UnreadableImage as error:
            if not skip_damaged:
                raise
            notes.append(f"left out: {error}")
            continue
        images.append(image)
        names.append(name)
        if changes:
            notes.append(f"{name}: {', '.join(changes)}")
    stacked = torch.stack(images) if images else torch.empty((0, *shape), dtype=torch.uint8)
    return LoadedImages(stacked, names, notes)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path} does not exist: name another") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"{path} is not an image that Pillow can read: convert it to PNG or JPEG") from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged files, Pillow's plugins raise errors of any type
        raise UnreadableImage(
            f"{path} cannot be read as an image ({error}): replace the file, it is damaged or too large"
        ) from error


def _fit(image: Image.Image, name: str, shape: tuple[int, ...]) -> tuple[Tensor, list[str]]:
    """Fit an image to the model; returns uint8 ``[C, H, W]``, and what was changed.

    Raises:
        UserError: naming an image that cannot be converted.
    """
    try:
        return _fitted(image, name, shape)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's errors for palettes, modes and EXIF data that it cannot use are of any type
        raise UnreadableImage(
            f"{name} cannot be converted to 8-bit grey or RGB ({error}; its pixels are of mode {image.mode}): convert "
            "it first"
        ) from error


def _fitted(image: Image.Image, name: str, shape: tuple[int, ...]) -> tuple[Tensor, list[str]]:
    channels, height, width = shape
    changes = []
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
        changes.append("rotated as its EXIF says")
    mode = PILLOW_MODES[channels]
    if image.mode.startswith("I;16"):
        image = eight_bit_grey(image)
        changes.append("16 bits per pixel reduced to 8")
    elif image.mode in ("I", "F"):
        raise UnreadableImage(
            f"{name} has pixels of mode {image.mode} (32 bits), whose range is unknown: convert it to 8 or 16 bits per "
            "channel"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        if rgba.getchannel("A").getextrema() != (255, 255):
            changes.append("transparency composited over white")
    if image.mode != mode:
        changes.append(f"{image.mode} converted to {mode}")
        image = image.convert(mode)
    given_width, given_height = image.size
    image = centre_crop(image, width / height)
    if image.size != (given_width, given_height):
        changes.append(f"{given_width}x{given_height} centre-cropped to {image.width}x{image.height}")
    if image.size != (width, height):
        changes.append(f"{image.width}x{image.height} resized to {width}x{height}")
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.reshape(height, width, channels).permute(2, 0, 1).contiguous(), changes


def as_model_input(images: ImageLike, shape: tuple[int, ...]) -> Tensor:
    """Check a user's images and convert them to floats ``[n, *shape]``.

    Args:
        images: a tensor or array, float ``[n, C, H, W]`` in [-1, 1] (its type is kept) or uint8 ``[n, C, H, W]`` in
            [0, 255] (converted to x / 127.5 − 1), or a list of such samples; or a file, a Pillow image or a list of
            these, which :func:`load_images` reads and whose notes become warnings. Models of points take float
            ``[n, D]`` of any range.
        shape: of one sample of the model.

    Raises:
        UserError: if shape, type or range is wrong, or a value is not finite.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)):
        images = [images]
    if isinstance(images, (list, tuple)) and (
        not images or any(isinstance(image, (str, os.PathLike, Image.Image)) for image in images)
    ):
        if not all(isinstance(image, (str, os.PathLike, Image.Image)) for image in images):
            raise UserError("a list contains image files and something else: give files and Pillow images, or arrays")
        loaded = load_images(images, shape)
        for note in loaded.notes:
            warnings.warn(note, stacklevel=3)
        images = loaded.images
    kinds = "float in [-1, 1] or uint8 in [0, 255]" if len(shape) == 3 else "float"
    pixels = as_tensor(images, "images", f"{kinds}, or image files")
    _check_shape(pixels, shape)
    if pixels.dtype == torch.uint8 and len(shape) == 3:
        return from_uint8(pixels)
    check_float(pixels, "images", kinds)
    if len(shape) == 3:
        _check_range(pixels)
    return pixels


def from_uint8(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float32 in [-1, 1]: x / 127.5 − 1."""
    return images.float() / 127.5 - 1.0


def _check_shape(images: Tensor, shape: tuple[int, ...]) -> None:
    given = list(images.shape)
    expected = f"[n, {', '.join(map(str, shape))}]"
    if tuple(given[1:]) == shape:
        if given[0] == 0:
            raise UserError(f"got no images: give at least one, as {expected}")
        return
    remedy = "resize and convert them first, or give image files, which are converted automatically"
    if tuple(given) == shape:
        remedy = "add a batch dimension, images[None]"
    elif len(shape) == 3 and len(given) == 4:
        if tuple(given[1:]) == (*shape[1:], shape[0]):
            remedy = "move the channels first, images.transpose(0, 3, 1, 2) (permute for tensors)"
        elif given[1] != shape[0] and tuple(given[2:]) == shape[1:]:
            remedy = f"convert them from {given[1]} to {shape[0]} channels first"
    raise UserError(f"images have shape {given}, but the model takes {expected}: {remedy}")


def _check_range(images: Tensor) -> None:
    low, high = images.min().item(), images.max().item()
    if low < -1 - RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        remedy = "scale them to [-1, 1]"
        if low >= 0 and high <= 255:
            remedy = "if their range is [0, 255], give x / 127.5 - 1, or uint8"
        raise UserError(f"float images have values in [{low:.4g}, {high:.4g}], but the model takes [-1, 1]: {remedy}")
    if low >= 0 and high > 0:
        warnings.warn(
            "all image values are in [0, 1], but the model takes [-1, 1]: if black is 0 here, give 2 * x - 1",
            stacklevel=4,
        )
