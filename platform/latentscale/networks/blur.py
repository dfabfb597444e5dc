"""Blurs with the kernel [1,3,3,1]⊗[1,3,3,1]/64 that double, halve or keep a feature map's size, with zero padding.

The obvious implementation is a depthwise convolution. It is not used for two reasons. PyTorch computes its second
derivative, which gradient penalties need, one channel at a time. A hand-written adjoint as `autograd.Function` loses
part of the second derivative under `torch.compile`.

The blurs are linear, separable and the same for every channel, so matrices can compute them. Up to 8² one matrix is
applied to the flattened map; up to 64² one matrix along each axis. On larger maps a matrix would cost as much as a
convolution, and a weighted sum of shifted maps is used.

The matrices are exact in every floating-point format in use. As non-persistent buffers they follow the module's
device and precision and are in no state dict.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["up", "down", "same"]

_TAPS = (1.0, 3.0, 3.0, 1.0)
_LARGEST_FLATTENED = 8
_LARGEST_DENSE = 64


def blur_matrix(kind: Kind, size: int) -> Tensor:
    """The blur along one axis as a matrix ``[size, size out]`` to multiply from the right; exact, float32, on the CPU.

    ``up``: out[2i] = ¾x_i + ¼x_{i−1}, out[2i+1] = ¾x_i + ¼x_{i+1}. ``down``: out[i] = (x_{2i−1} + 3x_{2i} +
    3x_{2i+1} + x_{2i+2})/8. ``same``: out[i] = (x_{i−1} + 3x_i + 3x_{i+1} + x_{i+2})/8. x is zero outside the map.
    """
    if kind == "up":
        # the transpose of "down" inserts zeros and applies the same taps; the factor 4 is 2 per axis
        return 2.0 * blur_matrix("down", 2 * size).t()
    stride = 2 if kind == "down" else 1
    rows = [[0.0] * (size // stride) for _ in range(size)]
    for out in range(size // stride):
        for tap, weight in enumerate(_TAPS):
            row = stride * out + tap - 1
            if 0 <= row < size:
                rows[row][out] = weight / 8.0
    return torch.tensor(rows, device="cpu")


def blur_by_shifts(kind: Kind, x: Tensor) -> Tensor:
    """The blur along the last axis as a weighted sum of shifted maps, ``[…, size]`` -> ``[…, size out]``."""
    if kind == "up":
        before, after = F.pad(x, (1, 0))[..., :-1], F.pad(x, (0, 1))[..., 1:]
        return torch.stack((0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after), dim=-1).flatten(-2)
    if kind == "down":
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        return 0.375 * (even + odd) + 0.125 * (F.pad(odd, (1, 0))[..., :-1] + F.pad(even, (0, 1))[..., 1:])
    padded, size = F.pad(x, (1, 2)), x.shape[-1]
    inner = x + padded[..., 2 : size + 2]
    return 0.375 * inner + 0.125 * (padded[..., :size] + padded[..., 3:])


class Blur(nn.Module):
    """``[b, c, size, size]`` blurred to twice (``up``), half (``down``) or the same size (``same``).

    ``up`` inserts zeros, then applies four times the kernel. ``down`` applies the kernel with stride 2 and padding 1.
    ``same`` pads 1 before and 2 after.

    Args:
        kind: ``up``, ``down`` or ``same``.
        size: height and width of the input, even for ``down``.
    """

    constant: Tensor

    def __init__(self, kind: Kind, size: int) -> None:
        super().__init__()
        self.kind = kind
        self.size_out = {"up": 2 * size, "down": size // 2, "same": size}[kind]
        self.by_shifts = max(size, self.size_out) > _LARGEST_DENSE
        if self.by_shifts:
            return
        self.flattened = max(size, self.size_out) <= _LARGEST_FLATTENED
        matrix = blur_matrix(kind, size)
        constant = torch.kron(matrix, matrix) if self.flattened else matrix
        # computed on the CPU: on the meta device torch would import its compiler for each product
        self.register_buffer("constant", constant.to(torch.get_default_device()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, size out, size out]``."""
        if self.by_shifts:
            return blur_by_shifts(self.kind, blur_by_shifts(self.kind, x).mT).mT
        constant = self.constant.to(x.dtype)
        if self.flattened:
            return (x.flatten(2) @ constant).unflatten(2, (self.size_out, self.size_out))
        return constant.t() @ (x @ constant)
