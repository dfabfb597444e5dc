"""A trained model: the networks with their latent scale, and the folder they are kept in."""

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
from latentscale.latents.draws import Purpose, uniforms
from latentscale.latents.priors import Prior, make_prior
from latentscale.networks.build import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.outputs import Heads

FORMAT = "latentscale-model"
FORMAT_VERSION = 1
FILES = ("config.json", "generator.safetensors", "discriminator.safetensors", "latent_scale.safetensors")
INVERTING_METHODS = "pvdgan, dlsgan, aedlsgan, msegan or infogan"


@dataclass
class TrainedModel:
    """The networks of a finished (or still running) training with what is needed to use them.

    Attributes:
        generator, discriminator: with the weights to use (the moving averages); put in eval mode, frozen.
        variance: ``[d_z]`` running second moment v of predicted fake latents, None where a method has none.
        scale: ``[d_z]`` s, ones where the method keeps s = 1.
        prior: the law of one latent element.
        shape: of one sample, (C, H, W) for images or (D,) for points.
        heads: the discriminator's heads; ``heads.latent`` is 0 for methods without an encoder.
        network: what the networks were built from.
        method: the name of the method that trained it.
        uses_dynamic_scale: whether s follows v (DLSGAN and its descendants).
        step: training steps taken.
        images_seen: real images seen.
        dataset: name of the training data.
    """

    generator: nn.Module
    discriminator: nn.Module
    variance: Tensor | None
    scale: Tensor
    prior: Prior
    shape: tuple[int, ...]
    heads: Heads
    network: NetworkSettings
    method: str
    uses_dynamic_scale: bool
    step: int
    images_seen: int
    dataset: str

    def __post_init__(self) -> None:
        self.shape = tuple(self.shape)
        for network in (self.generator, self.discriminator):
            network.eval().requires_grad_(False)

    @property
    def latent_dim(self) -> int:
        """d_z."""
        return self.scale.numel()

    @property
    def can_invert(self) -> bool:
        """Whether the discriminator has a latent head."""
        return self.heads.latent > 0

    @property
    def makes_images(self) -> bool:
        """Whether a sample is an image [C, H, W], not a point [D]."""
        return len(self.shape) == 3

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The networks' floating-point type."""
        return next(self.generator.parameters()).dtype

    def to(self, device: torch.device | str) -> "TrainedModel":
        """Move everything to a device; returns itself."""
        self.generator.to(device)
        self.discriminator.to(device)
        self.scale = self.scale.to(device)
        self.variance = None if self.variance is None else self.variance.to(device)
        return self

    def scaled(self, latent: Tensor) -> Tensor:
        """z∘s: ``[n, d_z]`` to ``[n, d_z]`` on the networks' device, in their type."""
        return (latent.to(self.device, self.dtype) * self.scale.to(self.device, self.dtype)).to(self.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """G(z∘s): unscaled latents ``[n, d_z]`` to ``[n, *shape]``, not clipped, in one pass."""
        generated: Tensor = self.generator(self.scaled(latent))
        return generated

    def encode(self, sample: Tensor) -> Tensor:
        """E(x): samples ``[n, *shape]`` (images in [-1, 1]) to unscaled latents ``[n, d_z]``, in one pass.

        Raises:
            UserError: if the method trained no encoder.
        """
        self.require_encoder()
        latent = self.discriminator(sample.to(self.device, self.dtype)).latent
        assert isinstance(latent, Tensor)
        return latent

    def require_encoder(self) -> None:
        """Raise UserError if the method trained no encoder."""
        if not self.can_invert:
            raise UserError(
                f"a model trained by {self.method} has no encoder, so it cannot take images to latents: "
                f"train with {INVERTING_METHODS}"
            )

    def draw_latents(self, count: int, seed: int, purpose: Purpose) -> Tensor:
        """``[count, d_z]`` float64 latents of the prior on the CPU.

        A smaller count with the same seed and purpose is a prefix.
        """
        draws = torch.from_numpy(uniforms(seed, purpose, 0, 0, count * self.latent_dim))
        return self.prior.quantile(draws).reshape(count, self.latent_dim)

    def save(self, folder: Path | str) -> None:
        """Write the model's folder, complete or not at all; a folder that stands there is replaced.

        Files: ``config.json``, ``generator.safetensors``, ``discriminator.safetensors`` and
        ``latent_scale.safetensors`` (``scale`` and, where the method has it, ``variance``).
        """
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "method": self.method,
            "dataset": self.dataset,
            "step": self.step,
            "images_seen": self.images_seen,
            "shape": list(self.shape),
            "latent": {
                "dim": self.latent_dim,
                "law": self.prior.name,
                "uses_dynamic_scale": self.uses_dynamic_scale,
            },
            "heads": asdict(self.heads),
            "network": asdict(self.network),
        }
        scale = {"scale": self.scale}
        if self.variance is not None:
            scale["variance"] = self.variance
        with new_folder(Path(folder)) as new:
            (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            save_file(_on_cpu(self.generator.state_dict()), new / "generator.safetensors")
            save_file(_on_cpu(self.discriminator.state_dict()), new / "discriminator.safetensors")
            save_file(_on_cpu(scale), new / "latent_scale.safetensors")

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "TrainedModel":
        """Read a folder that :meth:`save` wrote; nothing in it is unpickled or executed.

        Raises:
            UserError: naming the file that is missing, unreadable, of another format or of other sizes.
        """
        folder = Path(folder)
        for name in FILES:
            if not (folder / name).is_file():
                raise UserError(f"{folder / name} is missing: {folder} is not a complete trained model")
        path = folder / "config.json"
        config = _read_config(path)
        try:
            latent = config["latent"]
            dim = int(latent["dim"])
            shape = tuple(int(size) for size in config["shape"])
            prior = make_prior(latent["law"])
            heads = Heads(**config["heads"])
            network = NetworkSettings(**config["network"])
            generator = build_generator(network, dim, shape)
            discriminator = build_discriminator(network, dim, shape, heads)
            method, dataset = str(config["method"]), str(config["dataset"])
            uses_dynamic_scale = bool(latent["uses_dynamic_scale"])
            step, images_seen = int(config["step"]), int(config["images_seen"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not describe a model ({error!r}): save the model again") from error
        _load_weights(generator, folder / "generator.safetensors")
        _load_weights(discriminator, folder / "discriminator.safetensors")
        scale_path = folder / "latent_scale.safetensors"
        tensors = _read_tensors(scale_path)
        for name, tensor in tensors.items():
            if tensor.shape != (dim,) or not torch.isfinite(tensor).all() or (tensor < 0).any():
                raise UserError(f"{scale_path}: {name} must hold {dim} finite numbers >= 0: save the model again")
        if "scale" not in tensors:
            raise UserError(f"{scale_path} holds no scale: save the model again")
        return cls(
            generator=generator,
            discriminator=discriminator,
            variance=tensors.get("variance"),
            scale=tensors["scale"],
            prior=prior,
            shape=shape,
            heads=heads,
            network=network,
            method=method,
            uses_dynamic_scale=uses_dynamic_scale,
            step=step,
            images_seen=images_seen,
            dataset=dataset,
        ).to(device)


def model_folder(path: Path | str) -> Path:
    """The model folder that a user's path means: a run's folder has it under ``model/``.

    Raises:
        UserError: if there is no model at either place.
    """
    path = Path(path)
    for folder in (path / "model", path):
        if (folder / "config.json").is_file():
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
