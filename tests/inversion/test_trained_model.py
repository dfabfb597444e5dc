"""A loaded model computes what the saved one did; the error for a damaged folder names the file."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentscale.errors import UserError
from latentscale.inversion.trained_model import TrainedModel, model_folder
from latentscale.latents.draws import Purpose
from tiny_models import DIM, tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (2,)])
def test_a_loaded_model_computes_the_same(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    model = tiny_model(shape, dtype=dtype)
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    latent = model.draw_latents(5, 3, Purpose.EVALUATION).to(dtype)
    image = model.decode(latent)
    assert image.shape == (5, *shape)
    assert image.dtype == dtype
    assert torch.equal(loaded.decode(latent), image)
    assert torch.equal(loaded.encode(image), model.encode(image))
    assert torch.equal(loaded.scale, model.scale)
    assert torch.equal(loaded.variance, model.variance)
    for name in ("shape", "network_settings", "uses_dynamic_scale", "step", "images_seen", "dataset"):
        assert getattr(loaded, name) == getattr(model, name)
    assert type(loaded.prior) is type(model.prior)
    assert type(loaded.method) is type(model.method)
    assert loaded.method.settings == model.method.settings


def test_decoding_multiplies_by_the_scale_and_encoding_does_not() -> None:
    model = tiny_model()
    latent = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.decode(latent), model.method.networks["generator"](latent * model.scale))
    image = torch.rand(4, 1, 8, 8) * 2 - 1
    assert torch.equal(model.encode(image), model.method.networks["discriminator"](image).latent)


def test_a_model_is_frozen_but_passes_gradients_to_latents() -> None:
    model = tiny_model()
    for network in model.method.networks.values():
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not any(module.training for module in network.modules())
    latent = torch.ones(2, DIM, requires_grad=True)
    model.decode(latent).square().sum().backward()
    assert latent.grad is not None
    assert latent.grad.abs().min() > 0


def test_a_method_without_encoder_has_no_variance_on_disk(tmp_path: Path) -> None:
    model = tiny_model(encoder=False)
    model.save(tmp_path)
    assert load_file(tmp_path / "statistics.safetensors") == {}
    loaded = TrainedModel.load(tmp_path)
    assert loaded.variance is None
    with pytest.raises(UserError, match=r"vanilla has no encoder.*pvdgan"):
        loaded.encode(torch.zeros(1, 1, 8, 8))


def test_saving_again_replaces_everything(tmp_path: Path) -> None:
    tiny_model().save(tmp_path / "model")
    again = tiny_model(law="uniform")
    again.step = 2400
    again.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    assert (loaded.step, loaded.prior.name) == (2400, "uniform")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_path_may_be_a_run_or_its_model_folder(tmp_path: Path) -> None:
    tiny_model().save(tmp_path / "run" / "model")
    assert model_folder(tmp_path / "run") == tmp_path / "run" / "model"
    assert model_folder(tmp_path / "run" / "model") == tmp_path / "run" / "model"
    with pytest.raises(UserError, match="elsewhere does not exist"):
        model_folder(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty contains no trained model"):
        model_folder(tmp_path / "empty")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def resize_variance(folder: Path) -> None:
    save_file({"variance.variance": torch.ones(DIM + 1)}, folder / "statistics.safetensors")


def break_variance(folder: Path) -> None:
    save_file({"variance.variance": torch.full((DIM,), torch.nan)}, folder / "statistics.safetensors")


def swap_weights(folder: Path) -> None:
    tiny_model(width=5).save(folder.parent / "other")
    (folder.parent / "other" / "generator.safetensors").rename(folder / "generator.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "discriminator.safetensors").unlink(), "discriminator.safetensors is missing"),
        (lambda folder: cut(folder / "generator.safetensors"), "generator.safetensors cannot be read"),
        (lambda folder: cut(folder / "config.json"), "config.json cannot be read as JSON"),
        (lambda folder: change_config(folder, format="other"), "config.json is not the config.json of a trained model"),
        (lambda folder: change_config(folder, format_version=99), "config.json has format version 99"),
        (lambda folder: change_config(folder, latent={"dim": DIM}), "config.json does not describe a model"),
        (lambda folder: change_config(folder, network={"colour": 3}), "config.json: network.colour is no setting"),
        (
            lambda folder: change_config(folder, latent={"dim": DIM, "law": "cauchy", "categories": []}),
            "config.json: .*cauchy",
        ),
        (swap_weights, "generator.safetensors: .* has shape .*, but the network in config.json needs"),
        (lambda folder: change_config(folder, method={"name": "other", "settings": {}}), "does not describe a model"),
        (resize_variance, "statistics.safetensors: variance.variance must contain finite numbers >= 0 of shape .6."),
        (break_variance, "statistics.safetensors: variance.variance must contain finite numbers >= 0"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path: Path, damage: object, message: str) -> None:
    folder = tmp_path / "model"
    tiny_model().save(folder)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        TrainedModel.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "generator.safetensors", "statistics.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    tiny_model().save(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is missing"):
        TrainedModel.load(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("method", "settings", "variance_start"), True, r"method\.settings\.variance_start=true: it must be a number"),
        (("method", "settings", "variance_start"), 1e39, r"variance_start=1e\+39 is not allowed: .*3\.4e38"),
        (("method", "settings", "variance_start"), "x", r"method\.settings\.variance_start=x: it must be a number"),
        (("method", "settings", "colour"), 1, r"method\.settings\.colour is no setting of this release"),
        (("method", "settings"), [1], r"another type or out of range"),
        (("network", "widths"), [-4], r"network\.widths=-4 is not allowed"),
        (("network", "widths"), 4, r"network\.widths=4: it must be a list"),
        (("network", "base_width"), 2.5, r"network\.base_width=2\.5: it must be an integer"),
        (("network", "base_width"), 2**40, r"another type or out of range"),
        (("latent", "dim"), 0, r"another type or out of range"),
        (("latent", "dim"), -3, r"another type or out of range"),
        (("latent", "categories"), [0], r"another type or out of range"),
        (("shape",), [1, -8, 8], r"another type or out of range"),
        (("shape",), [], r"another type or out of range"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_another_type_or_size_are_refused(
    place: tuple[str, ...], value: object, message: str, tmp_path: Path
) -> None:
    tiny_model().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    section = config
    for name in place[:-1]:
        section = section[name]
    section[place[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"config\.json.*{message}"):
        TrainedModel.load(tmp_path)


def test_a_description_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    tiny_model().save(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json cannot be read as JSON \(it is nested too deeply\)"):
        TrainedModel.load(tmp_path)
