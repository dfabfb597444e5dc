"""How well a model that was trained on labels predicts those of other samples."""

import torch
from torch import Tensor

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.samples import RealBatch, Samples


def right_labels(batch: RealBatch) -> Tensor:
    """Whether each label of each sample was predicted, ``[b, d_l]`` bool."""
    method = batch.model.method
    logits = method.classify(batch.samples).cpu().split(list(method.spec.categories), dim=1)
    return torch.stack([part.argmax(1) for part in logits], dim=1) == batch.labels


def accuracy(samples: Samples) -> dict[str, float]:
    """The fraction of right answers, averaged over labels."""
    return {"accuracy": samples.rows(right_labels).double().mean().item()}


ACCURACY = Metric(
    name="accuracy",
    description="real samples whose label the model predicts",
    source="fraction of right answers, averaged over labels",
    figures=(Figure("accuracy", Direction.HIGHER, format=".2%"),),
    needs=frozenset({Need.CLASSIFICATION, Need.LABELS}),
    measure=accuracy,
    shown="accuracy {accuracy}",
    per_real=(right_labels,),
)
