"""Comparing the final states of two runs."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

KINDS = ("network", "average", "statistic", "exp_avg_sq", "exp_avg", "step")


def final_state(folder: Path) -> dict[str, Tensor]:
    """The newest checkpoint of a run."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return load_file(newest / "state.safetensors")


def kind(name: str) -> str:
    """Weights, averages, moments of each order and statistics are compared on their own scales."""
    return next(kind for kind in KINDS if f"{kind}/" in name)


def worst_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """max over tensors of ‖a−b‖∞ / max(‖b‖∞, 1e-3 × the largest tensor of its kind)."""
    assert a.keys() == b.keys()
    largest: dict[str, float] = {}
    for name, tensor in b.items():
        largest[kind(name)] = max(largest.get(kind(name), 0.0), float(tensor.double().abs().max()))
    assert all(value > 0 for value in largest.values()), "a kind that is all zero proves nothing"
    return max(
        float((a[name].double() - b[name].double()).abs().max())
        / max(float(b[name].double().abs().max()), 1e-3 * largest[kind(name)])
        for name in b
    )


def bitwise_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether every tensor is the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
