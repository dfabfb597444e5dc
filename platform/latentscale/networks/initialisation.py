"""Initial weights as a function of (run seed, parameter name), whatever the device, precision or build order."""

import zlib

import torch
from torch import nn

from latentscale.latents.draws import Purpose, uniforms


@torch.no_grad()
def initialize(module: nn.Module, seed: int, name: str) -> None:
    """Set every parameter named ``bias`` or ``…_bias`` to 0 and draw all others from N(0, 1).

    If the module that holds a parameter has an attribute ``initial_deviation``, it multiplies the draws.

    A parameter's draws depend only on ``seed`` and on ``{name}.{the parameter's name in the module}``, not on which
    other parameters exist. They are made in float64 and then rounded, so that the float32 network is the rounded
    float64 one.

    Args:
        module: its parameters are overwritten in place; its buffers are not.
        seed: of the run.
        name: of the module in the run, e.g. ``generator``. It gives networks of one architecture different weights.
    """
    for parameter_name, parameter in module.named_parameters():
        if parameter_name.rpartition(".")[2].endswith("bias"):
            parameter.zero_()
            continue
        key = zlib.crc32(f"{name}.{parameter_name}".encode())
        draws = torch.from_numpy(uniforms(seed, Purpose.WEIGHTS, key, 0, parameter.numel()))
        deviation = getattr(module.get_submodule(parameter_name.rpartition(".")[0]), "initial_deviation", 1.0)
        parameter.copy_((torch.special.ndtri(draws) * deviation).view_as(parameter))
