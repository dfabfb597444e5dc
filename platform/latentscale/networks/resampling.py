"""Blurs with [1,3,3,1]⊗[1,3,3,1]/64 that double, halve or keep a feature map's size; zero outside the map.

All are linear, the same for every channel, and separable. Up to 64² a small dense matrix along each axis computes
them, up to 8² one matrix on the flattened map both axes at once; on larger maps, where a dense matrix would cost as
much as a convolution, weighted sums of shifted maps do. A depthwise convolution would be the obvious way: its second
derivative, which a gradient penalty needs, walks the channels one by one in PyTorch, and an own adjoint as
`autograd.Function` loses part of it under `torch.compile`.

The constants are exact in every floating-point format in use and follow the module's device and precision as
non-persistent buffers: they are in no state dict.
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
    """The blur along one axis as ``[size, size out]``, applied from the right; float32 on the CPU, every entry exact.

    ``up``: out[2i] = ¾x_i + ¼x_{i−1}, out[2i+1] = ¾x_i + ¼x_{i+1}. ``down``: out[i] = (x_{2i−1} + 3x_{2i} +
    3x_{2i+1} + x_{2i+2})/8. ``same``: out[i] = (x_{i−1} + 3x_i + 3x_{i+1} + x_{i+2})/8. x is zero outside.
    """
    if kind == "up":
        # The transpose of halving: zero insertion, then the same taps, times 2 along an axis.
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
    """``[b, c, size, size]`` blurred to twice (``up``), half (``down``) or the same size.

    ``up`` is zero insertion ×2, then the blur ×4; ``down`` is the blur with stride 2, padded by 1; ``same`` pads
    1 before and 2 after.

    Args:
        kind: see above.
        size: of the input's sides, even for ``down``.
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
        # made on the CPU: where only sizes are asked for, torch would load its compiler for each product
        self.register_buffer("constant", constant.to(torch.get_default_device()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The blurred map; the shapes are the class's."""
        if self.by_shifts:
            return blur_by_shifts(self.kind, blur_by_shifts(self.kind, x).mT).mT
        constant = self.constant.to(x.dtype)
        if self.flattened:
            return (x.flatten(2) @ constant).unflatten(2, (self.size_out, self.size_out))
        return constant.t() @ (x @ constant)
