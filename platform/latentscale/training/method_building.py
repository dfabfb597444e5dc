"""From a plan to its method: networks with their initial weights, or only their sizes."""

from collections.abc import Iterator
from dataclasses import asdict

import torch
from torch import nn

from latentscale.config import Config, keys
from latentscale.errors import UserError
from latentscale.inversion.trained_model import TrainedModel, model_folder
from latentscale.latents.priors import make_prior
from latentscale.methods.base import Method
from latentscale.networks.initialisation import initialize
from latentscale.networks.spec import ModelSpec
from latentscale.training.plan import ModelPlan
from latentscale.wording import shown

_UNBUILDABLE = 2**20


def build_method(plan: ModelPlan) -> Method:
    """The method with networks whose initial weights follow from (seed, name); on the CPU in float32."""
    config = plan.config
    networks = build_networks(plan)
    for name, network in networks.items():
        initialize(network, config.run.seed, name)
    if plan.method.frozen_generator:
        networks["generator"].load_state_dict(finished_generator(config, plan.spec).state_dict())
    method = plan.method(config.method, networks, make_prior(config.latent.law, config.latent.quantile), plan.spec)
    for name, statistic in method.statistics.items():
        initialize(statistic, config.run.seed, name)
    return method


def network_sizes(plan: ModelPlan) -> dict[str, int]:
    """Number of parameters of each network, without allocating them.

    Raises:
        UserError: naming the ``network.*`` key, if the networks cannot be built.
    """
    try:
        with torch.device("meta"):
            networks = build_networks(plan)
    except (RuntimeError, OverflowError, TypeError, ValueError, MemoryError):
        config = plan.config
        key, size = max(_sizes(config), key=lambda one: one[1])
        if size < _UNBUILDABLE:
            raise
        # the product of such sizes overflows
        raise UserError(f"{key}={shown(size)} is too large for any network: lower it") from None
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}


def finished_generator(config: Config, spec: ModelSpec) -> nn.Module:
    """The averaged generator of the run in ``method.generator_run``, which must fit this configuration.

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
        **{f"network.{key}": value for key, value in asdict(model.network_settings).items()},
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
            raise UserError(
                f"method.generator_run={run} has {key}={value}, this run {ours[key]}: give both the same value"
            )
    return model.method.networks["generator"]


def _sizes(config: Config) -> Iterator[tuple[str, int]]:
    """The keys that size the networks, each with its largest number."""
    for key, value, _ in keys(config):
        section = key.split(".")[0]
        if section in ("network", "latent", "method") or key == "data.shape":
            numbers = value if isinstance(value, list) else [value]
            yield from ((key, number) for number in numbers if type(number) is int)


def build_networks(plan: ModelPlan) -> dict[str, nn.Module]:
    """The networks of a plan by name, not initialised."""
    return plan.method.build_networks(plan.config.method, plan.config.network, plan.spec)
