"""From a configuration to a run's plan: settings that cannot work are refused before anything is allocated."""

import torch

from latentscale.config import Config
from latentscale.data.datasets import open_dataset, open_held_out
from latentscale.data.label_resampling import ResampledOrder
from latentscale.data.order import Order
from latentscale.decoding.decoder import Decoder
from latentscale.distributed.deepspeed_settings import check_engine, require_launcher_settings
from latentscale.distributed.streams import StepPlan
from latentscale.distributed.topology import Topology
from latentscale.errors import UserError
from latentscale.latents.priors import make_prior, require_standard
from latentscale.methods.base import Method
from latentscale.networks.spec import ModelSpec
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.remote import is_remote
from latentscale.training.memory import require_memory
from latentscale.training.method_building import finished_generator, network_sizes
from latentscale.training.plan import ModelPlan, RunPlan
from latentscale.training.readers import storage_options
from latentscale.training.starting_weights import check_start
from latentscale.wording import counted, shown


def plan_run(config: Config, method: type[Method]) -> RunPlan:
    """Check everything that can be checked without allocating, and open the data.

    Raises:
        UserError: naming the key and the remedy.
    """
    plan = _plan_with_data(config, method)
    check_start(config, plan.topology.rank)
    if method.frozen_generator:
        finished_generator(config, plan.spec)
    require_memory(plan)
    return plan


def plan_dry_run(config: Config, method: type[Method]) -> ModelPlan:
    """The plan that a dry run shows: without data if ``data.shape`` is given in place of the shards' path.

    A method that inverts a finished run's generator may be shown without that run.

    Returns:
        A `RunPlan` if there are data.

    Raises:
        UserError: naming the key and the remedy.
    """
    needs_no_data = config.data.shape and config.data.name == "shards" and not config.data.path
    plan = _plan_without_data(config, method) if needs_no_data else _plan_with_data(config, method)
    if method.frozen_generator and config.method.generator_run:  # type: ignore[attr-defined]
        finished_generator(config, plan.spec)
    return plan


def _plan_with_data(config: Config, method: type[Method]) -> RunPlan:
    topology = _check_launch(config)
    steps = _check_step(config, method, topology.processes)
    dataset, held_out = _open_data(config, topology, steps)
    spec = ModelSpec(tuple(dataset.shape), config.latent.dim, _categories(config, method, dataset))
    model = _check_model(ModelPlan(config, method, topology, steps, spec, Decoder(config.data.decoder)))
    return RunPlan(**vars(model), dataset=dataset, held_out=held_out, order=_order(config, dataset, steps))


def _plan_without_data(config: Config, method: type[Method]) -> ModelPlan:
    topology = _check_launch(config)
    steps = _check_step(config, method, topology.processes)
    spec = ModelSpec(tuple(config.data.shape), config.latent.dim, _categories(config, method, None))
    return _check_model(ModelPlan(config, method, topology, steps, spec, Decoder(config.data.decoder)))


def _check_launch(config: Config) -> Topology:
    """Refuse another number of processes than the configured one, and an engine that cannot do what is configured."""
    topology = Topology.from_environment()
    topology.check(config.distributed.processes)
    topology.refuse_launcher_contradictions(config.training.precision)
    ours = config.distributed
    chosen = {key: getattr(ours, key) for key in ("engine", "zero", "offload_optimizer")}
    clipping = {"optimizer.gradient_clipping": config.optimizer.gradient_clipping}
    require_launcher_settings({**{f"distributed.{key}": value for key, value in chosen.items()}, **clipping})
    check_engine(**chosen, precision=config.training.precision)
    # a healthy process must have sent several heartbeats before it can count as silent
    if ours.timeout_seconds < 4 * ours.heartbeat_seconds:
        raise UserError(
            f"distributed.timeout_seconds={ours.timeout_seconds:g} is less than four times"
            f" distributed.heartbeat_seconds={ours.heartbeat_seconds:g}: raise the first or lower the second"
        )
    return topology


def _check_step(config: Config, method: type[Method], processes: int) -> StepPlan:
    """How a step is laid out, refusing what the method's mathematics or the compiler cannot work with."""
    training, shape = config.training, config.data.shape
    steps = StepPlan.make(training.batch, config.distributed.streams, processes, training.accumulation)
    method.validate(config.method, config.latent.law, steps.stream_batch)
    if config.network.minibatch_deviation and steps.stream_batch < 2:
        raise UserError(
            "network.minibatch_deviation=true compares the samples of a stream, and a stream has 1 sample: set"
            " distributed.streams to at most half of training.batch"
        )
    prior = make_prior(config.latent.law, config.latent.quantile)
    if method.dynamic_scale:
        require_standard(prior, f"{method.name}'s dynamic scale")
    if training.compile and training.compile not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(
            f"training.compile={shown(training.compile)} is not a backend of torch.compile: choose one of"
            f" {known}, or leave it empty"
        )
    if shape and len(shape) not in (1, 3):
        raise UserError(f"data.shape={list(shape)} must be [channels, height, width], [2] for points, or empty")
    return steps


def _open_data(config: Config, topology: Topology, steps: StepPlan) -> tuple[ShardedDataset, ShardedDataset]:
    """The training split, and the held-out split that pictures and evaluations use."""
    _refuse_retries_that_outlast_the_others(config, topology)
    wanted = tuple(config.data.shape)
    # local shards need no cache, and so no home folder
    options = storage_options(config) if is_remote(config.data.path) else None
    dataset = open_dataset(config.data.name, config.data.path or None, "train", options)
    if wanted and tuple(dataset.shape) != wanted:
        raise UserError(
            f"data.shape={list(wanted)} but the samples of {dataset.name} are {list(dataset.shape)}: leave data.shape"
            " and preset out, so that settings follow from the data, or choose the preset of that size"
        )
    if dataset.count < steps.streams:
        raise UserError(
            f"distributed.streams={steps.streams} but {dataset.name} has {counted(dataset.count, 'sample')}: use"
            " fewer streams"
        )
    if config.data.mode == "streaming" and config.data.label_probabilities:
        raise UserError(
            "data.label_probabilities takes samples from anywhere, and data.mode=streaming reads shards from start"
            " to end: remove one of the two"
        )
    held_out = open_held_out(dataset, config.data.name, config.data.path or None, options)
    if held_out.shape != dataset.shape or held_out.count < 2:
        raise UserError(
            f"{held_out.path} has {counted(held_out.count, 'sample')} of {list(held_out.shape)}: evaluations need at"
            f" least 2 samples of {list(dataset.shape)}, the shape of the training data"
        )
    return dataset, held_out


def _check_model(plan: ModelPlan) -> ModelPlan:
    """Return the plan as it is, after refusing networks that cannot be built for its samples."""
    if plan.config.data.horizontal_flip and len(plan.shape) != 3:
        raise UserError("data.horizontal_flip=true is not possible with points: set it to false")
    network_sizes(plan)
    return plan


def _order(config: Config, dataset: ShardedDataset, steps: StepPlan) -> Order:
    """The order in which the training split is read.

    Raises:
        UserError: naming ``data.label_probabilities``.
    """
    data, seed = config.data, config.run.seed
    if data.label_probabilities:
        return ResampledOrder(dataset, data.label_probabilities, steps.streams, seed)
    return Order(dataset.shard_counts, steps.streams, seed, data.shuffle_window_images)


def _refuse_retries_that_outlast_the_others(config: Config, topology: Topology) -> None:
    """While one process retries a remote, the others wait for it in a collective, and must not give up first."""
    retry_seconds, timeout_seconds = config.data.retry_seconds, config.distributed.timeout_seconds
    reads_remote = config.data.name == "shards" and is_remote(config.data.path)
    if topology.processes > 1 and reads_remote and retry_seconds >= timeout_seconds:
        raise UserError(
            f"data.retry_seconds={retry_seconds:g} is not less than distributed.timeout_seconds={timeout_seconds:g},"
            " after which the other processes give up: lower the first or raise the second"
        )


def _categories(config: Config, method: type[Method], dataset: ShardedDataset | None) -> tuple[int, ...]:
    """d_c of each label: from the data for labelled methods, else ``latent.categories``."""
    chosen = tuple(config.latent.categories)
    if not (method.labelled or method.categorical):
        if chosen:
            raise UserError(f"latent.categories={list(chosen)}: {method.name} has no categories: leave it empty")
        return ()
    if method.labelled and dataset is not None:
        if not dataset.label_sizes:
            raise UserError(
                f"{method.name} needs labels, and {dataset.name} has none: put the images of each class into a folder "
                "of its own, or a labels.csv beside them, and build the shards again"
            )
        if chosen and chosen != dataset.label_sizes:
            raise UserError(
                f"latent.categories={list(chosen)} but the labels of {dataset.name} have the sizes"
                f" {list(dataset.label_sizes)}: leave it empty"
            )
        return dataset.label_sizes
    if not chosen and not method.categories_optional:
        why = ", which must be given when there are no data" if method.labelled else ""
        raise UserError(
            f"latent.categories is empty: {method.name} needs the number of categories of each label{why}, such as"
            " latent.categories=[10]"
        )
    return chosen
