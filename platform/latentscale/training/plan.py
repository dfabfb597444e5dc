"""The plan of a run whose configuration has passed every check: nothing in it is optional, and nothing changes."""

from dataclasses import dataclass

from latentscale.config import Config
from latentscale.data.order import Order
from latentscale.decoding.decoder import Decoder
from latentscale.distributed.streams import StepPlan
from latentscale.distributed.topology import Topology
from latentscale.methods.base import Method
from latentscale.networks.spec import ModelSpec
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.wording import counted


@dataclass(frozen=True)
class ModelPlan:
    """A configuration that fits its method, the number of processes and the shape of its samples.

    Enough to size the networks and to build the method, without any data.

    Attributes:
        steps: how a step is divided over streams and processes.
        spec: sizes of the model; its shape is that of one sample, ``(C, H, W)`` or ``(D,)``.
        decoder: of image files.
    """

    config: Config
    method: type[Method]
    topology: Topology
    steps: StepPlan
    spec: ModelSpec
    decoder: Decoder

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.spec.shape


@dataclass(frozen=True)
class RunPlan(ModelPlan):
    """A model's plan with the data that it is trained on.

    Attributes:
        dataset: the training split.
        held_out: the test split where the data have one, else the training split; for pictures and evaluations.
        order: the order in which the training split is read.
    """

    dataset: ShardedDataset
    held_out: ShardedDataset
    order: Order

    def in_words(self) -> str:
        """What is trained and how a step is divided, in a line: a launcher may have dropped a setting unseen."""
        steps = self.steps
        processes = counted(steps.processes, "process", "processes")
        return (
            f"{self.method.name} on {self.dataset.count:,} samples of {self.dataset.name}, in"
            f" {self.config.training.precision}: batch {steps.batch} = {processes} x accumulation"
            f" {steps.accumulation} x {counted(steps.microbatch, 'sample')}"
        )

    def identity(self) -> dict[str, str]:
        """What must stay the same, besides the configuration, for a run to be continued."""
        decoding = self.decoder.identity(self.dataset.extensions)
        return {"method": self.method.name, "data": self.dataset.fingerprint, **decoding}
