"""What a run leaves to look at and to use: pictures, evaluations and the trained model."""

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from latentscale.evaluation.classification import accuracy
from latentscale.evaluation.reconstruction import reconstruction_report
from latentscale.inversion.images import from_uint8
from latentscale.inversion.model import TrainedModel
from latentscale.methods.base import Method
from latentscale.training.ema import WeightAverage
from latentscale.training.held_out import read_labels, read_samples
from latentscale.training.plan import RunPlan
from latentscale.training.snapshots import write_snapshots

SHOWN_POINTS = 1000


class ModelOutputs:
    """Pictures, evaluations and ``model/`` from the averaged weights; on rank 0 only.

    Held-out images (a ``test`` split) serve where the data have them, else training images.

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
        for name, statistic in method.statistics.items():
            assert isinstance(statistic, nn.Module)
            copied = averaged.statistics[name] = copy.deepcopy(statistic)
            # a method keeps its statistics as attributes too
            for attribute, value in vars(method).items():
                if value is statistic:
                    setattr(averaged, attribute, copied)
        return TrainedModel(
            averaged,
            copy.deepcopy(self.plan.config.network),
            step,
            step * plan.steps.batch,
            plan.dataset.name,
        )

    def snapshot(self, model: TrainedModel) -> list[Path]:
        """Write the pictures of a model's step."""
        return write_snapshots(
            model,
            self._floats(self.plan.config.snapshot.images if len(self.plan.shape) == 3 else SHOWN_POINTS),
            model.step,
            model.images_seen,
            self.snapshots,
            self.plan.config.run.seed,
        )

    def evaluate(self, model: TrainedModel) -> dict[str, Any]:
        """Latent error on fresh draws, reconstruction of held-out images, accuracy on them, as far as each applies."""
        limit = self.plan.config.evaluation.images
        report = reconstruction_report(model, self._held_out(limit), self.plan.config.run.seed, limit)
        if self.method.classifies:
            reals = self._floats(limit)
            labels = read_labels(self.plan.held_out, limit)
            if len(labels) == len(reals):  # else some could not be read, and were left out
                report["accuracy"] = accuracy(model, reals, labels)
        held_out = self.plan.held_out is not self.plan.dataset
        return {**report, "held_out": int(held_out)}

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
