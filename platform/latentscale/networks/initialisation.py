"""Weights as a function of (run seed, parameter name), whatever the device, precision or order of building."""

import zlib

import torch
from torch import nn

from latentscale.latents.draws import Purpose, uniforms


@torch.no_grad()
def initialize(module: nn.Module, seed: int, name: str) -> None:
    """Fill every parameter: those called ``bias`` or ``…_bias`` with 0, all others with draws of N(0, 1).

    Where the module that holds a parameter has an attribute ``initial_deviation``, the draws are multiplied by it.

    A parameter's draws depend on ``seed`` and on ``{name}.{its name in the module}`` only. They are made in float64
    and then rounded, so that a float32 network is the rounded float64 one, and no parameter's values depend on
    which others exist.

    Args:
        module: whose parameters are overwritten in place; buffers are left alone.
        seed: of the run.
        name: of the module in the run, e.g. ``generator``: keeps equally built networks apart.
    """
    for parameter_name, parameter in module.named_parameters():
        if parameter_name.rpartition(".")[2].endswith("bias"):
            parameter.zero_()
            continue
        key = zlib.crc32(f"{name}.{parameter_name}".encode())
        draws = torch.from_numpy(uniforms(seed, Purpose.WEIGHTS, key, 0, parameter.numel()))
        deviation = getattr(module.get_submodule(parameter_name.rpartition(".")[0]), "initial_deviation", 1.0)
        parameter.copy_((torch.special.ndtri(draws) * deviation).view_as(parameter))
