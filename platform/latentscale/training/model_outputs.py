"""What a run produces from its averaged weights: pictures, evaluations and the trained model."""

import copy
from pathlib import Path
from typing import Any

from torch import Tensor

from latentscale.evaluation.evaluate import evaluate
from latentscale.inversion.image_input import from_uint8
from latentscale.inversion.trained_model import TrainedModel
from latentscale.methods.base import Method
from latentscale.training.ema import WeightAverage
from latentscale.training.held_out import read_labels, read_samples
from latentscale.training.plan import RunPlan
from latentscale.training.snapshots import write_snapshots

SHOWN_POINTS = 1000


class ModelOutputs:
    """Pictures, evaluations and ``model/`` from the averaged weights; on rank 0 only.

    Real samples are held out (a ``test`` split) if the data have one, else training samples.

    Args:
        snapshots, model: the folders of the pictures and of the trained model.
    """

    def __init__(self, plan: RunPlan, method: Method, average: WeightAverage, snapshots: Path, model: Path) -> None:
        self.plan, self.method, self.average = plan, method, average
        self.snapshots, self.model = snapshots, model
        self._reals: Tensor | None = None

    def trained_model(self, step: int, copies: bool = False) -> TrainedModel:
        """The method around the averaged networks, with a copy of the statistics.

        Args:
            copies: of the networks too, to be used while the training goes on.
        """
        plan = self.plan
        method = self.method
        networks = copy.deepcopy(self.average.networks) if copies else self.average.networks
        averaged = type(method)(method.settings, networks, method.prior, method.spec)
        averaged.statistics = copy.deepcopy(method.statistics)
        return TrainedModel(
            averaged,
            copy.deepcopy(self.plan.config.network),
            step,
            step * plan.steps.batch,
            plan.dataset.name,
        )

    def snapshot(self, model: TrainedModel) -> list[Path]:
        """Draw the pictures of a model and write them."""
        return write_snapshots(
            model,
            self._floats(self.plan.config.snapshot.images if len(self.plan.shape) == 3 else SHOWN_POINTS),
            model.step,
            model.images_seen,
            self.snapshots,
            self.plan.config.run.seed,
        )

    def evaluate(self, model: TrainedModel) -> dict[str, Any]:
        """Every metric that applies, on fresh draws and on held-out samples."""
        limit = self.plan.config.evaluation.images
        report = evaluate(model, self._held_out(limit), self.plan.config.run.seed, limit, labels=self._labels)
        held_out = self.plan.held_out is not self.plan.dataset
        return {**report, "held_out": int(held_out)}

    def _labels(self) -> Tensor | None:
        """``[n, d_l]`` categories of the held-out samples that the metrics use; None where they are not known."""
        limit, held_out = self.plan.config.evaluation.images, self.plan.held_out
        labels = read_labels(held_out, limit) if held_out.labels else None
        # unreadable samples are left out but their labels are not: labels and samples would no longer match
        return labels if labels is not None and len(labels) == len(self._held_out(limit)) else None

    def _floats(self, limit: int) -> Tensor:
        """Held-out samples as the networks take them."""
        held_out = self._held_out(limit)
        return held_out if held_out.is_floating_point() else from_uint8(held_out)

    def export(self, model: TrainedModel) -> None:
        """Write ``model/``."""
        model.save(self.model)

    def _held_out(self, limit: int) -> Tensor:
        """``[n, …]`` on the CPU, spread evenly over the held-out data: images uint8, points float32."""
        if self._reals is None:
            limit = max(self.plan.config.evaluation.images, SHOWN_POINTS if len(self.plan.shape) == 1 else 0)
            skip_errors = self.plan.config.data.on_error == "skip"
            self._reals = read_samples(self.plan.held_out, limit, self.plan.decoder, skip_errors)
        return self._reals[:limit]
