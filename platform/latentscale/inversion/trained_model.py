"""A trained model: a method with its averaged networks and its statistics, and the folder that stores it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentscale.atomic import new_folder
from latentscale.errors import UserError
from latentscale.latents.categories import draw_categories
from latentscale.latents.draws import Purpose, uniforms
from latentscale.latents.priors import Prior, make_prior
from latentscale.methods.base import Method
from latentscale.methods.registry import METHODS
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec
from latentscale.regular_files import file_status, read_json
from latentscale.settings import check_ranges
from latentscale.value_types import settings_of

FORMAT = "latentscale-model"
FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
STATISTICS_FILE = "statistics.safetensors"


@dataclass
class TrainedModel:
    """A method with everything that is needed to use it, after or during its training.

    Attributes:
        method: holds the networks (with averaged weights), which are put in eval mode and frozen, and the running
            statistics.
        network_settings: from which the networks were built.
        step: number of training steps taken.
        images_seen: number of real images seen in training.
        dataset: name of the training data.
    """

    method: Method
    network_settings: NetworkSettings
    step: int
    images_seen: int
    dataset: str

    def __post_init__(self) -> None:
        for network in self.method.networks.values():
            network.eval().requires_grad_(False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, (C, H, W) for images or (D,) for points."""
        return self.method.spec.shape

    @property
    def latent_dim(self) -> int:
        """d_z."""
        return self.method.spec.latent_dim

    @property
    def categories(self) -> tuple[int, ...]:
        """d_c of each label that the generator takes; empty if it takes none."""
        return self.method.spec.categories if self.method.generates_by_category else ()

    @property
    def prior(self) -> Prior:
        """The distribution of one latent element."""
        return self.method.prior

    @property
    def variance(self) -> Tensor | None:
        """``[d_z]`` running second moment v of the predicted fake latents; None for methods without it."""
        return self.method.latent_state().get("variance")

    @property
    def scale(self) -> Tensor:
        """s ``[d_z]``; ones for methods without dynamic scale."""
        scale = self.method.latent_state().get("scale")
        return torch.ones(self.latent_dim, device=self.device) if scale is None else scale

    @property
    def uses_dynamic_scale(self) -> bool:
        """Whether s is computed from v (DLSGAN and the methods that build on it)."""
        return self.method.dynamic_scale

    @property
    def can_generate(self) -> bool:
        """Whether the model generates samples from latents of the prior."""
        return self.method.generates

    @property
    def can_invert(self) -> bool:
        """Whether the model has an encoder."""
        return self.method.inverts

    @property
    def makes_images(self) -> bool:
        """Whether samples are images (C, H, W), not points (D,)."""
        return len(self.shape) == 3

    @property
    def _parameter(self) -> nn.Parameter:
        return next(parameter for network in self.method.networks.values() for parameter in network.parameters())

    @property
    def device(self) -> torch.device:
        """The networks' device."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The networks' floating-point type."""
        return self._parameter.dtype

    def to(self, device: torch.device | str) -> "TrainedModel":
        """Move networks and statistics to a device; returns itself."""
        for module in (*self.method.networks.values(), *self.method.statistics.values()):
            module.to(device)
        return self

    def decode(self, latent: Tensor, category: Tensor | None = None, already_scaled: bool = False) -> Tensor:
        """G(z∘s): unscaled latents ``[n, d_z]`` to ``[n, *shape]``, not clipped, in one forward pass.

        Args:
            latent: a latent of :meth:`map_latent` or :meth:`encode`.
            category: one-hots ``[n, Σ d_c]`` if the generator takes categories, else None.
            already_scaled: whether ``latent`` is z∘s.

        Raises:
            UserError: if the model has no generator, or categories are missing.
        """
        if "generator" not in self.method.networks:
            raise UserError(
                f"a model trained by {self.method.name} has no generator: use a model of another method to generate"
            )
        if self.categories and category is None:
            raise UserError(
                f"a model trained by {self.method.name} also takes categories: give them, sizes {list(self.categories)}"
            )
        latent = latent.to(self.device, self.dtype)
        if category is not None:
            category = category.to(self.device, self.dtype)
        return self.method.decode(latent if already_scaled else self.scale_latent(latent), category)

    def map_latent(self, latent: Tensor) -> Tensor:
        """Latents of the prior ``[n, d_z]`` to those that :meth:`decode` takes: w for InvGAN, unchanged for others."""
        return self.method.map_latent(latent.to(self.device, self.dtype))

    def scale_latent(self, latent: Tensor) -> Tensor:
        """z∘s ``[n, d_z]`` of unscaled latents ``[n, d_z]``, on the networks' device and in their type."""
        scale = self.method.latent_state().get("scale")
        latent = latent.to(self.device, self.dtype)
        return latent if scale is None else latent * scale.to(self.device, self.dtype)

    def encode(self, sample: Tensor) -> Tensor:
        """E(x): samples ``[n, *shape]`` (images in [-1, 1]) to unscaled latents ``[n, d_z]``, in one forward pass.

        Raises:
            UserError: if the model has no encoder.
        """
        self.require_encoder()
        return self.method.encode(sample.to(self.device, self.dtype))

    def require_encoder(self) -> None:
        """Raise a UserError if the model has no encoder."""
        if not self.can_invert:
            inverting = ", ".join(name for name, method in METHODS.items() if method.inverts)
            raise UserError(
                f"a model trained by {self.method.name} has no encoder, so it cannot map images to latents: "
                f"use a model trained by one of {inverting}"
            )

    def draw_latents(self, count: int, seed: int, purpose: Purpose) -> Tensor:
        """``[count, d_z]`` float64 latents of the prior on the CPU.

        With the same seed and purpose, a smaller ``count`` gives the first of them.
        """
        draws = torch.from_numpy(uniforms(seed, purpose, 0, 0, count * self.latent_dim))
        return self.prior.quantile(draws.reshape(count, self.latent_dim))

    def draw_categories(self, count: int, seed: int, purpose: Purpose) -> Tensor | None:
        """``[count, Σ d_c]`` one-hots drawn from P(C); None if the generator takes no categories."""
        if not self.categories:
            return None
        prior = self.method.latent_state()["category_prior"].cpu().double()
        # stream 1, because draw_latents uses stream 0 of this purpose
        draws = torch.from_numpy(uniforms(seed, purpose, 0, 1, count * len(self.categories)))
        return draw_categories(draws.reshape(count, -1), prior, self.categories)

    def save(self, folder: Path | str) -> None:
        """Write the model's folder atomically; an existing folder is replaced.

        It contains ``config.json``, a ``NETWORK.safetensors`` per network and ``statistics.safetensors``.
        """
        method = self.method
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "method": {"name": method.name, "settings": asdict(method.settings)},
            "dataset": self.dataset,
            "step": self.step,
            "images_seen": self.images_seen,
            "shape": list(self.shape),
            "latent": {
                "dim": self.latent_dim,
                "law": self.prior.name,
                "quantile": self.prior.source,
                "categories": list(method.spec.categories),
            },
            "network": asdict(self.network_settings),
        }
        with new_folder(Path(folder)) as new:
            (new / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
            for name, network in method.networks.items():
                save_file(_on_cpu(network.state_dict()), new / f"{name}.safetensors")
            statistics = {
                f"{name}.{key}": tensor
                for name, statistic in method.statistics.items()
                for key, tensor in statistic.state_dict().items()
            }
            save_file(_on_cpu(statistics), new / STATISTICS_FILE)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "TrainedModel":
        """Read a folder that :meth:`save` wrote; nothing in it is unpickled or executed.

        Raises:
            UserError: naming the file that is missing, unreadable, in another format or of the wrong sizes.
        """
        folder = Path(folder)
        path = folder / CONFIG_FILE
        _require(path)
        config = _read_config(path)
        try:
            kind = METHODS[config["method"]["name"]]
            settings = settings_of(kind.Settings, config["method"]["settings"], "method.settings.")
            check_ranges(settings, "method.settings.")
            latent = config["latent"]
            sizes = tuple(int(size) for size in latent["categories"])
            spec = ModelSpec(tuple(int(size) for size in config["shape"]), int(latent["dim"]), sizes)
            network_settings = settings_of(NetworkSettings, config["network"], "network.")
            check_ranges(network_settings, "network.")
            _require_sizes(spec)
            networks = kind.build_networks(settings, network_settings, spec)
            method = kind(settings, networks, make_prior(latent["law"], latent.get("quantile", "")), spec)
            step, images_seen, dataset = int(config["step"]), int(config["images_seen"]), str(config["dataset"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        # torch raises RuntimeError for sizes that no memory holds
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError, MemoryError) as error:
            missing = isinstance(error, KeyError)
            reason = f"{error} is missing" if missing else "a value is of another type or out of range"
            raise UserError(
                f"{path} does not describe a model of this release ({reason}): save the model again"
            ) from error
        for name, each in networks.items():
            _require(folder / f"{name}.safetensors")
            _load_weights(each, folder / f"{name}.safetensors")
        _require(folder / STATISTICS_FILE)
        _load_statistics(method, folder / STATISTICS_FILE)
        return cls(method, network_settings, step, images_seen, dataset).to(device)


def _require_sizes(spec: ModelSpec) -> None:
    if min(*spec.shape, *spec.categories, spec.latent_dim) < 1 or len(spec.shape) not in (1, 3):
        raise ValueError("sizes must be at least 1")


def _require(path: Path) -> None:
    try:
        found = path.is_file()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): let this user read it, or copy it again") from error
    if not found:
        raise UserError(f"{path} is missing, so {path.parent} is not a complete model: save or copy the model again")


def _load_statistics(method: Method, path: Path) -> None:
    stored = _read_tensors(path)
    expected = {
        f"{name}.{key}": tensor
        for name, statistic in method.statistics.items()
        for key, tensor in statistic.state_dict().items()
    }
    if stored.keys() != expected.keys():
        odd = sorted(stored.keys() ^ expected.keys())[0]
        raise UserError(
            f"{path} does not fit the method in {CONFIG_FILE} (missing or unexpected {odd}): save the model again"
        )
    # buffers (v, P(C)) cannot be negative; parameters (AEDLSGAN's w) can
    weights = {f"{name}.{key}" for name, each in method.statistics.items() for key, _ in each.named_parameters()}
    for name, tensor in stored.items():
        shape, negative = list(expected[name].shape), name not in weights and bool((tensor < 0).any())
        if (
            list(tensor.shape) != shape
            or not tensor.is_floating_point()
            or not torch.isfinite(tensor).all()
            or negative
        ):
            sign = "" if name in weights else " >= 0"
            raise UserError(f"{path}: {name} must contain finite numbers{sign} of shape {shape}: save the model again")
    for name, statistic in method.statistics.items():
        own = {key: stored[f"{name}.{key}"] for key in statistic.state_dict()}
        # the stored type, so that float64 statistics stay float64
        statistic.to(next(iter(own.values())).dtype)
        statistic.load_state_dict(own)


def model_folder(path: Path | str) -> Path:
    """The model's folder for a user's path: ``path/model`` if ``path`` is a run's folder, else ``path``.

    Raises:
        UserError: if neither contains a model.
    """
    path = Path(path)
    try:
        for folder in (path / "model", path):
            if (folder / CONFIG_FILE).is_file():
                return folder
        exists = path.exists()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a folder that this user may enter") from error
    if not exists:
        raise UserError(f"{path} does not exist: give a run's folder, or its model/ folder")
    raise UserError(
        f"{path} contains no trained model: give the folder of a run that has saved a model/, or a model folder"
    )


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # cloned, because safetensors refuses tensors that share memory
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): let this user read it, or copy it again") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): save the model again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{path} is not the {CONFIG_FILE} of a trained model: give the model/ folder of a run")
    if config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {config.get('format_version')}, but this release of latentscale reads version "
            f"{FORMAT_VERSION}: use the release that wrote it, or save the model again"
        )
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        file_status(path)
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}), it is damaged: save or copy the model again") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read ({reason}): let this user read it, or copy it again") from error


def _load_weights(network: nn.Module, path: Path) -> None:
    stored = _read_tensors(path)
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing or extra:
        raise UserError(
            f"{path} does not fit the network in {CONFIG_FILE} ({len(missing)} missing and {len(extra)} unexpected "
            f"tensors, the first is {(missing + extra)[0]}): save the model again"
        )
    for name, tensor in stored.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name} has shape {list(tensor.shape)}, but the network in {CONFIG_FILE} needs "
                f"{list(expected[name].shape)}: save the model again"
            )
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{path}: {name} has weights that are not finite: use another run or an earlier model")
        if not tensor.is_floating_point() and expected[name].is_floating_point():
            raise UserError(f"{path}: {name} holds {tensor.dtype}, not floating-point weights: save the model again")
    # the stored type, so that a float64 model stays float64
    dtypes = {stored[name].dtype for name, _ in network.named_parameters()}
    if len(dtypes) != 1:
        raise UserError(f"{path} mixes tensors of types {sorted(map(str, dtypes))}: save the model again")
    network.to(dtypes.pop())
    network.load_state_dict(stored)
