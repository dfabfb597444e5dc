"""How well a method that was trained on labels tells the labels of samples it may not have seen."""

import torch
from torch import Tensor

from latentscale.inversion.trained_model import TrainedModel


@torch.no_grad()
def accuracy(model: TrainedModel, samples: Tensor, labels: Tensor, batch_images: int = 64) -> float:
    """The share of right answers, averaged over labels.

    Args:
        model: of a method that classifies.
        samples: ``[n, *shape]`` floats, images in [-1, 1].
        labels: ``[n, d_l]`` int64 categories.
    """
    right = []
    for batch, answers in zip(samples.split(batch_images), labels.split(batch_images), strict=True):
        logits = model.method.classify(batch.to(model.device, model.dtype)).cpu()
        parts = logits.split(list(model.method.spec.categories), dim=1)
        right.append(torch.stack([part.argmax(1) for part in parts], dim=1) == answers)
    return torch.cat(right).double().mean().item()
