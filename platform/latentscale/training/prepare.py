"""From a configuration to what a run needs, refusing impossible pairs before anything is allocated."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from latentscale.config import Config
from latentscale.data.datasets import open_dataset, open_held_out
from latentscale.data.label_resampling import ResampledOrder
from latentscale.data.order import Order
from latentscale.decoding.decoder import Decoder
from latentscale.distributed.deepspeed_settings import check_engine, refuse_other_than_launched
from latentscale.distributed.streams import StepPlan
from latentscale.distributed.topology import Topology
from latentscale.errors import UserError
from latentscale.inversion.model import TrainedModel, model_folder
from latentscale.latents.priors import make_prior, require_standard
from latentscale.methods.base import Method
from latentscale.networks.initialisation import initialize
from latentscale.networks.spec import ModelSpec
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions
from latentscale.storage.remote import is_remote
from latentscale.storage.user_cache import default_shard_cache
from latentscale.wording import counted


@dataclass
class Preparation:
    """A configuration that fits its data, its method and the number of processes.

    Attributes:
        plan: how a step is laid over streams and processes.
        spec: sizes of the model; its shape is ``(C, H, W)`` of the data.
        dataset: the training split, None where a dry run has no data at hand.
        held_out: the test split where the data have one, else the training split; for pictures and evaluations.
        decoder: of image files.
    """

    config: Config
    method: type[Method]
    topology: Topology
    plan: StepPlan
    spec: ModelSpec
    dataset: ShardedDataset | None
    held_out: ShardedDataset | None
    decoder: Decoder

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.spec.shape

    def identity(self) -> dict[str, str]:
        """What, beside the configuration, makes this the same run when it is continued."""
        assert self.dataset is not None
        decoding = self.decoder.identity(self.dataset.extensions)
        return {"method": self.method.name, "data": self.dataset.fingerprint, **decoding}

    def order(self) -> Order:
        """Which real sample stands where.

        Raises:
            UserError: naming ``data.label_probabilities``.
        """
        assert self.dataset is not None
        data, seed = self.config.data, self.config.run.seed
        if data.label_probabilities:
            return ResampledOrder(self.dataset, data.label_probabilities, self.plan.streams, seed)
        return Order(self.dataset.shard_counts, self.plan.streams, seed, data.shuffle_window_images)

    def build_method(self) -> Method:
        """Networks with the weights that (seed, name) give, and the method around them; on the CPU in float32."""
        config = self.config
        networks = self._networks()
        for name, network in networks.items():
            initialize(network, config.run.seed, name)
        if self.method.frozen_generator:
            networks["generator"].load_state_dict(finished_generator(config, self.spec).state_dict())
        method = self.method(config.method, networks, make_prior(config.latent.law, config.latent.quantile), self.spec)
        for name, statistic in method.statistics.items():
            assert isinstance(statistic, nn.Module)
            initialize(statistic, config.run.seed, name)
        return method

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
    _check_engine(config)
    _refuse_rare_heartbeats(config)
    plan = StepPlan.make(training.batch, config.distributed.streams, topology.processes, training.accumulation)
    method.validate(config.method, config.latent.law, plan.stream_batch)
    if config.network.minibatch_deviation and plan.stream_batch < 2:
        raise UserError(
            "network.minibatch_deviation=true is over each stream's batch, which is 1: choose distributed.streams of at"
            " most half of training.batch"
        )
    prior = make_prior(config.latent.law, config.latent.quantile)
    if method.dynamic_scale:
        require_standard(prior, f"{method.name}'s dynamic scale")
    if training.compile and training.compile not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(f"training.compile={training.compile} is no backend of torch.compile: one of {known}, or empty")

    wanted = tuple(config.data.shape)
    if wanted and len(wanted) not in (1, 3):
        raise UserError(f"data.shape={list(wanted)} must be [channels, height, width], [2] for points, or empty")
    dataset = held_out = None
    if not (dry and wanted and config.data.name == "shards" and not config.data.path):
        _refuse_retries_that_outlast_the_others(config, topology)
        options = storage_options(config)
        dataset = open_dataset(config.data.name, config.data.path or None, "train", options)
        if wanted and tuple(dataset.shape) != wanted:
            raise UserError(
                f"data.shape={list(wanted)} but {dataset.name} holds {list(dataset.shape)}: choose the preset of that"
                " size, or other shards"
            )
        if dataset.count < plan.streams:
            raise UserError(
                f"distributed.streams={plan.streams} but {dataset.name} has {counted(dataset.count, 'sample')}: use"
                " fewer streams"
            )
        if config.data.mode == "streaming" and config.data.label_probabilities:
            raise UserError(
                "data.label_probabilities takes samples from anywhere, and data.mode=streaming reads shards from end to"
                " end: leave one of them out"
            )
        held_out = open_held_out(dataset, config.data.name, config.data.path or None, options)
        if held_out.shape != dataset.shape or held_out.count < 2:
            raise UserError(
                f"{held_out.path} holds {counted(held_out.count, 'sample')} of {list(held_out.shape)}: what"
                f" reconstructions are measured on must be 2 or more of {list(dataset.shape)}, the shape of the"
                " training data"
            )
    shape = dataset.shape if dataset is not None else wanted
    spec = ModelSpec(tuple(shape), config.latent.dim, _categories(config, method, dataset))
    if config.data.horizontal_flip and len(shape) != 3:
        raise UserError("data.horizontal_flip=true: points cannot be mirrored: leave it at false")
    decoder = Decoder(config.data.decoder)
    preparation = Preparation(config, method, topology, plan, spec, dataset, held_out, decoder)
    if method.frozen_generator and not (dry and not config.method.generator_run):  # type: ignore[attr-defined]
        finished_generator(config, spec)
    if dataset is not None:
        preparation.order()
    preparation.sizes()  # network.* that cannot be built is refused here
    return preparation


def _check_engine(config: Config) -> None:
    """An engine that can do what is asked of it, and none that the launcher contradicts."""
    ours = config.distributed
    chosen = {key: getattr(ours, key) for key in ("engine", "zero", "offload_optimizer")}
    clipping = {"optimizer.gradient_clipping": config.optimizer.gradient_clipping}
    refuse_other_than_launched({**{f"distributed.{key}": value for key, value in chosen.items()}, **clipping})
    check_engine(**chosen, precision=config.training.precision)


def _refuse_rare_heartbeats(config: Config) -> None:
    """A process that is well must have spoken several times before it counts as silent."""
    heartbeat_seconds, timeout_seconds = config.distributed.heartbeat_seconds, config.distributed.timeout_seconds
    if timeout_seconds < 4 * heartbeat_seconds:
        raise UserError(
            f"distributed.timeout_seconds={timeout_seconds:g} is less than four times"
            f" distributed.heartbeat_seconds={heartbeat_seconds:g}: raise the one or lower the other"
        )


def _refuse_retries_that_outlast_the_others(config: Config, topology: Topology) -> None:
    """While one process tries a remote again, the others wait for it in a collective, and give up first."""
    retry_seconds, timeout_seconds = config.data.retry_seconds, config.distributed.timeout_seconds
    reads_remote = config.data.name == "shards" and is_remote(config.data.path)
    if topology.processes > 1 and reads_remote and retry_seconds >= timeout_seconds:
        raise UserError(
            f"data.retry_seconds={retry_seconds:g} is not less than distributed.timeout_seconds={timeout_seconds:g},"
            " after which the other processes give up: lower the one or raise the other"
        )


def storage_options(config: Config) -> StorageOptions:
    """How files behind URLs are fetched and kept."""
    data = config.data
    folder = Path(data.cache_folder) if data.cache_folder else default_shard_cache()
    return StorageOptions(
        folder.absolute(), data.cache_bytes, data.retry_seconds, data.stall_seconds, data.on_error == "skip"
    )


def finished_generator(config: Config, spec: ModelSpec) -> nn.Module:
    """The averaged generator of the run in ``method.generator_run``, which must be one of this configuration's.

    Raises:
        UserError: if there is none, or it was built for other samples, latents or networks.
    """
    run: str = config.method.generator_run  # type: ignore[attr-defined]
    if not run:
        raise UserError(
            "method.generator_run is empty: give the folder of the finished run whose generator is inverted"
        )
    try:
        model = TrainedModel.load(model_folder(run))
    except UserError as error:
        raise UserError(f"method.generator_run={run}: {error}") from None
    if not model.method.generates or model.method.generates_by_category or "mapping" in model.method.networks:
        raise UserError(
            f"method.generator_run={run}: {model.method.name} has no generator of plain latents: choose another run"
        )
    if model.method.dynamic_scale:
        raise UserError(
            f"method.generator_run={run}: {model.method.name} feeds its generator scaled latents, and s = 1 here:"
            " choose a run without dynamic scale, such as vanilla's"
        )
    theirs = {
        "data.shape": list(model.shape),
        "latent.dim": model.latent_dim,
        "latent.law": model.prior.name,
        "latent.quantile": model.prior.source,
        **{f"network.{key}": value for key, value in asdict(model.network).items()},
    }
    ours = {
        "data.shape": list(spec.shape),
        "latent.dim": spec.latent_dim,
        "latent.law": config.latent.law,
        "latent.quantile": make_prior(config.latent.law, config.latent.quantile).source,
        **{f"network.{key}": value for key, value in asdict(config.network).items()},
    }
    for key, value in theirs.items():
        if ours[key] != value:
            raise UserError(f"method.generator_run={run} has {key}={value}, this run {ours[key]}: give both the same")
    return model.method.networks["generator"]


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
    if not chosen and not method.categories_optional:
        why = ", which without data at hand must be said" if method.labelled else ""
        raise UserError(
            f"latent.categories is empty: {method.name} needs the number of categories of each label{why}, such as"
            " latent.categories=[10]"
        )
    return chosen
