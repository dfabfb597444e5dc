"""Blurs with [1,3,3,1]⊗[1,3,3,1]/64 that double, halve or keep a feature map's size; zero outside the map.

All are linear, the same for every channel, and separable, so a small dense matrix along each axis computes them;
up to 8² one matrix on the flattened map does both axes at once. A depthwise convolution would be the other way: its
second derivative, which a gradient penalty needs, walks the channels one by one in PyTorch, and an own adjoint as
`autograd.Function` loses part of it under `torch.compile`. Matrix products have neither fault, are faster on maps up
to 32² on a CPU even without a penalty, and negligible beside the convolutions on a GPU.

The constants are exact in every floating-point format in use and follow the module's device and precision as
non-persistent buffers: they are in no state dict.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["up", "down", "same"]

_TAPS = (1.0, 3.0, 3.0, 1.0)
_LARGEST_FLATTENED = 8


def blur_matrix(kind: Kind, size: int) -> Tensor:
    """The blur along one axis as ``[size, size out]``, applied from the right; float32, every entry exact.

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
    return torch.tensor(rows)


class Blur(nn.Module):
    """``[b, c, size, size]`` blurred to twice (``up``), half (``down``) or the same size.

    ``up`` is zero insertion ×2, then the blur ×4; ``down`` is the blur with stride 2, padded by 1; ``same`` pads
    1 before and 2 after (METHODS, "Networks").

    Args:
        kind: see above.
        size: of the input's sides, even for ``down``.
    """

    constant: Tensor

    def __init__(self, kind: Kind, size: int) -> None:
        super().__init__()
        self.size_out = {"up": 2 * size, "down": size // 2, "same": size}[kind]
        self.flattened = max(size, self.size_out) <= _LARGEST_FLATTENED
        matrix = blur_matrix(kind, size)
        constant = torch.kron(matrix, matrix) if self.flattened else matrix
        self.register_buffer("constant", constant, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The blurred map; the shapes are the class's."""
        constant = self.constant.to(x.dtype)
        if self.flattened:
            return (x.flatten(2) @ constant).unflatten(2, (self.size_out, self.size_out))
        return constant.t() @ (x @ constant)
