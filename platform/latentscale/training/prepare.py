"""From a configuration to what a run needs, refusing impossible pairs before anything is allocated."""

from dataclasses import dataclass

import torch
from torch import nn

from latentscale.config import Config
from latentscale.data.shards import ShardedDataset
from latentscale.data.sources import available_splits, open_dataset
from latentscale.distributed.streams import StepPlan
from latentscale.distributed.topology import Topology
from latentscale.errors import UserError
from latentscale.latents.priors import make_prior
from latentscale.methods.base import Method
from latentscale.networks.initialisation import initialize
from latentscale.networks.spec import ModelSpec


@dataclass
class Preparation:
    """A configuration that fits its data, its method and the number of processes.

    Attributes:
        plan: how a step is laid over streams and processes.
        spec: sizes of the model; its shape is ``(C, H, W)`` of the data.
        dataset: the training split, None where a dry run has no data at hand.
        held_out: the test split where the data have one, else the training split; for pictures and evaluations.
    """

    config: Config
    method: type[Method]
    topology: Topology
    plan: StepPlan
    spec: ModelSpec
    dataset: ShardedDataset | None
    held_out: ShardedDataset | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the data."""
        channels, height, width = self.spec.shape
        return channels, height, width

    def identity(self) -> dict[str, str]:
        """What, beside the configuration, makes this the same run when it is continued."""
        assert self.dataset is not None
        return {"method": self.method.name, "data": self.dataset.fingerprint}

    def build_method(self) -> Method:
        """Networks with the weights that (seed, name) give, and the method around them; on the CPU in float32."""
        config = self.config
        networks = self._networks()
        for name, network in networks.items():
            initialize(network, config.run.seed, name)
        return self.method(config.method, networks, make_prior(config.latent.law), self.spec)

    def sizes(self) -> dict[str, int]:
        """Parameters by network, without allocating them."""
        with torch.device("meta"):
            networks = self._networks()
        return {
            name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()
        }

    def _networks(self) -> dict[str, nn.Module]:
        return self.method.build_networks(self.config.method, self.config.network, self.spec)


def prepare(config: Config, method: type[Method], *, dry: bool = False) -> Preparation:
    """Check everything that can be checked without allocating.

    Args:
        dry: whether missing data are allowed where ``data.shape`` says their shape.

    Raises:
        UserError: naming the key and the remedy.
    """
    topology = Topology.from_environment()
    topology.check(config.distributed.processes)
    topology.refuse_launcher_contradictions(config.training.precision)
    training = config.training
    plan = StepPlan.make(training.batch, config.distributed.streams, topology.processes, training.accumulation)
    method.validate(config.method, config.latent.law, plan.stream_batch)
    if training.compile and training.compile not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(f"training.compile={training.compile} is no backend of torch.compile: one of {known}, or empty")

    wanted = tuple(config.data.shape)
    if wanted and len(wanted) != 3:
        raise UserError(f"data.shape={list(wanted)} must be [channels, height, width], or empty")
    dataset = held_out = None
    if not (dry and wanted and config.data.name == "shards" and not config.data.path):
        dataset = open_dataset(config.data.name, config.data.path or None, "train")
        if wanted and tuple(dataset.shape) != wanted:
            raise UserError(
                f"data.shape={list(wanted)} but {dataset.name} holds {list(dataset.shape)}: choose the preset of that"
                " size, or other shards"
            )
        if dataset.count < plan.streams:
            raise UserError(
                f"distributed.streams={plan.streams} but {dataset.name} has {dataset.count} samples: use fewer streams"
            )
        held_out = dataset
        if "test" in available_splits(config.data.name, config.data.path or None):
            held_out = open_dataset(config.data.name, config.data.path or None, "test")
        if held_out.shape != dataset.shape or held_out.count < 2:
            raise UserError(
                f"{held_out.path} holds {held_out.count} samples of {list(held_out.shape)}: what reconstructions are"
                f" measured on must be 2 or more of {list(dataset.shape)}, the shape of the training data"
            )
    channels, height, width = dataset.shape if dataset is not None else wanted
    spec = ModelSpec((channels, height, width), config.latent.dim, _categories(config, method, dataset))
    preparation = Preparation(config, method, topology, plan, spec, dataset, held_out)
    preparation.sizes()  # network.* that cannot be built is refused here
    return preparation


def _categories(config: Config, method: type[Method], dataset: ShardedDataset | None) -> tuple[int, ...]:
    """d_c of each label: the data's for labelled methods, else ``latent.categories``."""
    chosen = tuple(config.latent.categories)
    if not (method.labelled or method.categorical):
        if chosen:
            raise UserError(f"latent.categories={list(chosen)}: {method.name} knows no categories: leave it empty")
        return ()
    if method.labelled and dataset is not None:
        if not dataset.label_sizes:
            raise UserError(f"{method.name} needs labels, and {dataset.name} has none: use labelled data")
        if chosen and chosen != dataset.label_sizes:
            raise UserError(
                f"latent.categories={list(chosen)} but the labels of {dataset.name} have the sizes"
                f" {list(dataset.label_sizes)}: leave it empty"
            )
        return dataset.label_sizes
    if not chosen:
        raise UserError(
            f"latent.categories is empty: {method.name} needs the number of categories of each label, such as"
            " latent.categories=[10]"
        )
    return chosen
