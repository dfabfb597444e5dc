"""A trained model: a method around its averaged networks, and the folder it is kept in."""

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
from latentscale.networks.build import NetworkSettings
from latentscale.networks.spec import ModelSpec
from latentscale.settings import check_ranges

FORMAT = "latentscale-model"
FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
STATISTICS_FILE = "statistics.safetensors"


@dataclass
class TrainedModel:
    """A method at the end of its training (or on its way) with what is needed to use it.

    Attributes:
        method: around the networks to use (with averaged weights), which are put in eval mode and frozen, and with the
            running statistics.
        network: what the networks were built from.
        step: training steps taken.
        images_seen: real images seen.
        dataset: name of the training data.
    """

    method: Method
    network: NetworkSettings
    step: int
    images_seen: int
    dataset: str

    def __post_init__(self) -> None:
        for network in self.method.networks.values():
            network.eval().requires_grad_(False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, (C, H, W) for images or (D,) for points."""
        return self.method.spec.shape

    @property
    def latent_dim(self) -> int:
        """d_z."""
        return self.method.spec.latent_dim

    @property
    def categories(self) -> tuple[int, ...]:
        """d_c of each label that the generator takes; empty where it takes none."""
        return self.method.spec.categories if self.method.generates_by_category else ()

    @property
    def prior(self) -> Prior:
        """The law of one latent element."""
        return self.method.prior

    @property
    def variance(self) -> Tensor | None:
        """``[d_z]`` running second moment v of predicted fake latents, None where a method has none."""
        return self.method.latent_state().get("variance")

    @property
    def scale(self) -> Tensor:
        """``[d_z]`` s, ones where the method keeps s = 1."""
        scale = self.method.latent_state().get("scale")
        return torch.ones(self.latent_dim, device=self.device) if scale is None else scale

    @property
    def uses_dynamic_scale(self) -> bool:
        """Whether s follows v (DLSGAN and its descendants)."""
        return self.method.dynamic_scale

    @property
    def can_generate(self) -> bool:
        """Whether latents drawn from the prior become samples."""
        return self.method.generates

    @property
    def can_invert(self) -> bool:
        """Whether there is an encoder."""
        return self.method.inverts

    @property
    def makes_images(self) -> bool:
        """Whether a sample is an image [C, H, W], not a point [D]."""
        return len(self.shape) == 3

    @property
    def _parameter(self) -> nn.Parameter:
        return next(parameter for network in self.method.networks.values() for parameter in network.parameters())

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The networks' floating-point type."""
        return self._parameter.dtype

    def to(self, device: torch.device | str) -> "TrainedModel":
        """Move everything to a device; returns itself."""
        for module in (*self.method.networks.values(), *self.method.statistics.values()):
            module.to(device)
        return self

    def decode(self, latent: Tensor, category: Tensor | None = None, already_scaled: bool = False) -> Tensor:
        """G(z∘s): unscaled latents ``[n, d_z]`` to ``[n, *shape]``, not clipped, in one pass.

        Args:
            latent: as the prior or the encoder gives it.
            category: one-hots ``[n, Σ d_c]``, where the generator takes them.
            already_scaled: whether ``latent`` is z∘s, which goes into G as it is.

        Raises:
            UserError: a method that has no generator, or categories that are missing.
        """
        if "generator" not in self.method.networks:
            raise UserError(f"a model trained by {self.method.name} has no generator, so it makes no samples")
        if self.categories and category is None:
            raise UserError(f"a model trained by {self.method.name} also takes categories, of sizes {self.categories}")
        latent = latent.to(self.device, self.dtype)
        if category is not None:
            category = category.to(self.device, self.dtype)
        return self.method.decode(latent if already_scaled else self.scaled(latent), category)

    def codes(self, drawn: Tensor) -> Tensor:
        """Latents ``[n, d_z]`` as the prior gives them to those that :meth:`decode` takes: the same but for InvGAN."""
        return self.method.map_latent(drawn.to(self.device, self.dtype))

    def scaled(self, latent: Tensor) -> Tensor:
        """z∘s: ``[n, d_z]`` to ``[n, d_z]`` on the networks' device, in their type."""
        scale = self.method.latent_state().get("scale")
        latent = latent.to(self.device, self.dtype)
        return latent if scale is None else latent * scale.to(self.device, self.dtype)

    def encode(self, sample: Tensor) -> Tensor:
        """E(x): samples ``[n, *shape]`` (images in [-1, 1]) to unscaled latents ``[n, d_z]``, in one pass.

        Raises:
            UserError: if the method trained no encoder.
        """
        self.require_encoder()
        return self.method.encode(sample.to(self.device, self.dtype))

    def require_encoder(self) -> None:
        """Raise UserError if the method trained no encoder."""
        if not self.can_invert:
            inverting = ", ".join(name for name, method in METHODS.items() if method.inverts)
            raise UserError(
                f"a model trained by {self.method.name} has no encoder, so it cannot take images to latents: "
                f"train with one of {inverting}"
            )

    def draw_latents(self, count: int, seed: int, purpose: Purpose) -> Tensor:
        """``[count, d_z]`` float64 latents of the prior on the CPU.

        A smaller count with the same seed and purpose is a prefix.
        """
        draws = torch.from_numpy(uniforms(seed, purpose, 0, 0, count * self.latent_dim))
        return self.prior.quantile(draws.reshape(count, self.latent_dim))

    def draw_categories(self, count: int, seed: int, purpose: Purpose) -> Tensor | None:
        """``[count, Σ d_c]`` one-hots drawn from P(C), None where the generator takes none."""
        if not self.categories:
            return None
        prior = self.method.latent_state()["category_prior"].cpu().double()
        # the latents of this purpose are stream 0's
        draws = torch.from_numpy(uniforms(seed, purpose, 0, 1, count * len(self.categories)))
        return draw_categories(draws.reshape(count, -1), prior, self.categories)

    def save(self, folder: Path | str) -> None:
        """Write the model's folder, complete or not at all; a folder that stands there is replaced.

        Files: ``config.json``, one ``NETWORK.safetensors`` a network, and ``statistics.safetensors``.
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
            "network": asdict(self.network),
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
            UserError: naming the file that is missing, unreadable, of another format or of other sizes.
        """
        folder = Path(folder)
        path = folder / CONFIG_FILE
        _require(path)
        config = _read_config(path)
        try:
            kind = METHODS[config["method"]["name"]]
            settings = kind.Settings(**config["method"]["settings"])
            check_ranges(settings, "method.settings.")
            latent = config["latent"]
            sizes = tuple(int(size) for size in latent["categories"])
            spec = ModelSpec(tuple(int(size) for size in config["shape"]), int(latent["dim"]), sizes)
            network = NetworkSettings(**config["network"])
            networks = kind.build_networks(settings, network, spec)
            method = kind(settings, networks, make_prior(latent["law"], latent.get("quantile", "")), spec)
            step, images_seen, dataset = int(config["step"]), int(config["images_seen"]), str(config["dataset"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not describe a model ({error!r}): save the model again") from error
        for name, each in networks.items():
            _require(folder / f"{name}.safetensors")
            _load_weights(each, folder / f"{name}.safetensors")
        _require(folder / STATISTICS_FILE)
        _load_statistics(method, folder / STATISTICS_FILE)
        return cls(method, network, step, images_seen, dataset).to(device)


def _require(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: {path.parent} is not a complete trained model")


def _load_statistics(method: Method, path: Path) -> None:
    stored = _read_tensors(path)
    expected = {
        f"{name}.{key}": tensor
        for name, statistic in method.statistics.items()
        for key, tensor in statistic.state_dict().items()
    }
    if stored.keys() != expected.keys():
        odd = sorted(stored.keys() ^ expected.keys())[0]
        raise UserError(f"{path} does not belong to the method in {CONFIG_FILE} ({odd}): save the model again")
    # v and P(C) are buffers; weights, such as AEDLSGAN's w, have signs
    weights = {f"{name}.{key}" for name, each in method.statistics.items() for key, _ in each.named_parameters()}
    for name, tensor in stored.items():
        shape, negative = list(expected[name].shape), name not in weights and bool((tensor < 0).any())
        if list(tensor.shape) != shape or not torch.isfinite(tensor).all() or negative:
            sign = "" if name in weights else " >= 0"
            raise UserError(f"{path}: {name} must hold finite numbers{sign} of shape {shape}: save the model again")
    for name, statistic in method.statistics.items():
        own = {key: stored[f"{name}.{key}"] for key in statistic.state_dict()}
        # float64 statistics stay so
        statistic.to(next(iter(own.values())).dtype)
        statistic.load_state_dict(own)


def model_folder(path: Path | str) -> Path:
    """The model folder that a user's path means: a run's folder has it under ``model/``.

    Raises:
        UserError: if there is no model at either place.
    """
    path = Path(path)
    for folder in (path / "model", path):
        if (folder / CONFIG_FILE).is_file():
            return folder
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of a run, or its model folder")
    raise UserError(
        f"{path} holds no trained model: give the folder of a run that has written model/, or a model folder"
    )


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # Clones, because safetensors refuses tensors that share memory.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): save the model again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{path} is not a trained model's: give the model/ folder of a run")
    if config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {config.get('format_version')}, this latentscale reads version "
            f"{FORMAT_VERSION}: use the latentscale release that wrote it, or save the model again"
        )
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is damaged, save or copy the model again") from error


def _load_weights(network: nn.Module, path: Path) -> None:
    stored = _read_tensors(path)
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing or extra:
        raise UserError(
            f"{path} does not belong to the network in config.json beside it ({len(missing)} tensors "
            f"missing, {len(extra)} unknown, first {(missing + extra)[0]}): save the model again"
        )
    for name, tensor in stored.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name} is {list(tensor.shape)}, the network in config.json has "
                f"{list(expected[name].shape)}: save the model again"
            )
    # A run in float64 stays one: the stored type wins over the type the network was built in.
    dtypes = {stored[name].dtype for name, _ in network.named_parameters()}
    if len(dtypes) != 1:
        raise UserError(f"{path} mixes the types {sorted(map(str, dtypes))}: save the model again")
    network.to(dtypes.pop())
    network.load_state_dict(stored)
