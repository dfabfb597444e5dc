"""Takes a user's tensors, arrays and nested lists of numbers as tensors, or says what is wrong with them."""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.wording import shown

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool,
)  # fmt: skip
_NUMPY_KINDS = "fiub"


def as_tensor(values: Any, name: str, wanted: str) -> Tensor:
    """Numbers as a dense tensor without gradients: a tensor stays where it is, an array is copied to the CPU.

    Args:
        values: a tensor, an array or whatever NumPy takes as one, a nested list of numbers, a list of equal tensors.
        name: of the argument, for messages.
        wanted: what to give, for messages.

    Raises:
        UserError: if they are no numbers, differ in length, are masked, or are of a type that torch does not compute
            with.
    """
    if isinstance(values, Tensor):
        return _dense(values, name, wanted)
    if isinstance(values, (list, tuple)) and values and all(isinstance(value, Tensor) for value in values):
        parts = [_dense(value, name, wanted) for value in values]
        if len({(part.shape, part.dtype, part.device) for part in parts}) > 1:
            raise UserError(f"{name} are tensors of different shapes, types or devices: give {wanted}")
        return torch.stack(parts)
    if np.ma.is_masked(values):
        raise UserError(f"{name} have masked values: fill them, and give {wanted}")
    try:
        array = np.asarray(values)
    except Exception as error:  # whatever an object's conversion raises, such as ValueError for lists of unequal length
        raise UserError(f"{name} cannot be used as an array ({error}): give {wanted}") from error
    if array.dtype.kind not in _NUMPY_KINDS or array.dtype.itemsize > 8:
        kind = "type " + type(values).__name__ if array.dtype.kind == "O" else f"type {array.dtype}"
        raise UserError(f"{name} are of {kind}: give {wanted}")
    # copied, because torch refuses negative strides and foreign byte orders, and warns about read-only arrays
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


def as_latents(values: Any, dim: int, name: str = "latents") -> Tensor:
    """Latents ``[n, d_z]`` as floats.

    Args:
        values: as for :func:`as_tensor`; whole numbers become float64.
        dim: d_z.
        name: of the argument, for messages.

    Raises:
        UserError: if they are none, of another shape or type, or not finite.
    """
    wanted = f"numbers of shape [n, {dim}]"
    latents = as_tensor(values, name, wanted)
    if latents.ndim != 2 or latents.shape[1] != dim or len(latents) == 0:
        remedy = f": add a batch dimension, {name}[None]" if latents.shape == (dim,) else ""
        raise UserError(f"{name} have shape {list(latents.shape)}, but the model takes [n, {dim}]{remedy}")
    if latents.dtype in _INTEGERS and latents.dtype != torch.bool:
        latents = latents.double()
    if latents.dtype not in _FLOATS:
        raise UserError(f"{name} are of type {_type(latents)}: give {wanted}")
    if not torch.isfinite(latents).all():
        raise UserError(f"{name} contain NaN or infinite values: give finite values")
    return latents


def as_categories(values: Any, count: int, sizes: tuple[int, ...]) -> Tensor:
    """Categories ``[count, len(sizes)]`` int64 on the CPU.

    Args:
        values: whole numbers, as for :func:`as_tensor`.
        count: of samples.
        sizes: d_c of each label.

    Raises:
        UserError: if their shape or type is another, or a label has no such category.
    """
    wanted = f"integers [{count}, {len(sizes)}] (a column per label) from 0 to below {[*sizes]}"
    categories = as_tensor(values, "categories", wanted)
    if categories.shape != (count, len(sizes)) or categories.dtype not in _INTEGERS:
        given = f"shape {list(categories.shape)} and type {_type(categories)}"
        raise UserError(f"categories have {given}: they must be {wanted}")
    categories = categories.long().cpu()
    if bool((categories < 0).any() or (categories >= torch.tensor(sizes)).any()):
        raise UserError(f"categories contain {_range(categories)}: they must be {wanted}")
    return categories


def as_integer(value: Any, name: str, low: int, high: int | None = None) -> int:
    """A whole number from ``low`` to ``high``, or of any size from ``low``: of Python, NumPy or a tensor.

    Raises:
        UserError: naming the argument.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be an integer, not {shown(value)}") from None
    if number < low or (high is not None and number > high):
        bounds = f">= {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{name} must be {bounds}, got {number}")
    return number


def check_float(tensor: Tensor, name: str, wanted: str) -> None:
    """Raise a UserError if a tensor does not contain floats, or contains some that are not finite."""
    if tensor.dtype not in _FLOATS:
        raise UserError(f"{name} have type {_type(tensor)}: give {wanted}")
    if not torch.isfinite(tensor).all():
        raise UserError(f"{name} contain NaN or infinite values: give finite values")


def _dense(tensor: Tensor, name: str, wanted: str) -> Tensor:
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UserError(f"{name} are a tensor that is sparse, nested, quantized or without content: give {wanted}")
    return tensor.detach()


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _range(tensor: Tensor) -> str:
    return f"numbers from {int(tensor.min())} to {int(tensor.max())}"
