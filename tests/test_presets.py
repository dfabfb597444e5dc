"""Every preset dry-runs with the methods that it is for; those of published settings have the published numbers."""

import pytest

from latentscale.config import Config, load_config
from latentscale.methods.registry import METHODS
from latentscale.recipe import dry_run
from launching import ROOT

PRESETS = ROOT / "recipes" / "presets"
METHODS_OF_PRESET = {
    "celeba256": ["aedlsgan", "dlsgan"],
    "mnist32": ["dlsgan", "msegan", "infogan", "autoencoder", "classifier"],
    "celeba128": ["dlsgan", "msegan", "infogan", "invgan", "autoencoder"],
    "ffhq256": ["pvdgan", "vaegan", "dlsgan", "msegan", "infogan", "invgan", "vanilla", "posthoc_encoder"],
    "afhq256": ["pvdgan", "vaegan", "dlsgan", "msegan", "infogan", "vanilla", "posthoc_encoder"],
    "clusters": ["vanilla", "acgan", "cagan", "categorical_infogan", "elastic_infogan", "cgpgan"],
    "mnist28": ["acgan", "cagan", "categorical_infogan", "elastic_infogan", "cgpgan"],
    "mnist28_recovery": ["vanilla"],
    "afhq256_cgpgan": ["cgpgan"],
    "afhq256_codebook": ["vanilla", "cgpgan"],
    "imagenet_patches32": ["invgan", "pvdgan"],
    "mnist": ["invgan"],
    "digits8_relativistic": [
        "vanilla",
        "acgan",
        "cagan",
        "msegan",
        "infogan",
        "dlsgan",
        "pvdgan",
        "aedlsgan",
        "categorical_infogan",
        "elastic_infogan",
        "cgpgan",
        "vaegan",
        "invgan",
    ],
    "imagenet_patches32_relativistic": ["invgan", "pvdgan", "vanilla"],
}


def load(name: str, preset: str, *arguments: str) -> Config:
    return load_config(METHODS[name].Settings, name, {}, [f"preset={preset}", *arguments], PRESETS)


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        # one method of each preset is quick; whoever opens the clusters first writes them, which takes seconds
        pytest.param(preset, name, marks=[pytest.mark.slow] * (preset == "clusters" or name != names[0]))
        for preset, names in METHODS_OF_PRESET.items()
        for name in names
    ],
)
def test_each_preset_dry_runs_with_the_methods_it_is_for(preset: str, name: str) -> None:
    assert f"method: {name}" in dry_run(load(name, preset), METHODS[name])


# batch, optimizer, learning rate, weight decay, steps, R1, R2, d_z: Cho 2025, §4; mnist28_recovery: Cho 2020, §4.1
PUBLISHED = {
    ("dlsgan", "ffhq256"): (8, "adamw", 3e-3, 1e-4, 100 * 50_000 // 8, 10, 0, 1024),
    ("aedlsgan", "celeba256"): (8, "adamw", 1e-3, 1e-4, 100 * 162_770 // 8, 30, 0, 1024),
    ("dlsgan", "mnist32"): (32, "adam", 1e-3, 0, 30 * 60_000 // 32, 0.1, 0, 256),
    ("dlsgan", "celeba128"): (16, "adam", 1e-3, 0, 10 * 162_770 // 16, 1, 0, 512),
    ("vaegan", "afhq256"): (8, "adam", 3e-3, 0, 100 * 16_130 // 8, 3, 0, 1024),
    ("cagan", "clusters"): (32, "adamw", 1e-3, 1e-4, 200 * 1000, 1, 1, 256),
    ("acgan", "mnist28"): (32, "adamw", 1e-3, 1e-4, 200 * 1000, 1, 1, 256),
    ("cgpgan", "clusters"): (16, "adamw", 1e-4, 1e-4, 100 * 2000, 0, 1, 256),
    ("cgpgan", "mnist28"): (16, "adamw", 1e-3, 1e-4, 300 * 2000, 0, 1, 256),
    ("cgpgan", "afhq256_cgpgan"): (8, "adamw", 3e-3, 1e-4, 150 * 16_130 // 8, 0, 10, 1024),
    ("cgpgan", "afhq256_codebook"): (8, "adamw", 3e-3, 1e-4, 150 * 16_130 // 8, 0, 10, 1024),
    ("vanilla", "mnist28_recovery"): (32, "adam", 1e-5, 0, 200 * 60_000 // 32, 0, 0, 256),
}


@pytest.mark.parametrize(("name", "preset"), PUBLISHED)
def test_the_published_numbers(name: str, preset: str) -> None:
    config = load(name, preset)
    optimizer, training, method = config.optimizer, config.training, config.method
    assert (
        training.batch,
        optimizer.name,
        optimizer.learning_rate,
        optimizer.weight_decay,
        training.steps,
        method.r1,
        method.r2,
        config.latent.dim,
    ) == PUBLISHED[name, preset]
    betas = (0.9, 0.999) if preset == "mnist28_recovery" else (0.0, 0.99)
    assert (optimizer.beta1, optimizer.beta2) == betas
    assert method.adversarial == ("least_squares" if preset == "mnist28_recovery" else "nonsaturating")
    assert training.ema_decay == (0.0 if preset in ("mnist32", "mnist28_recovery") else 0.999)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "name"),
    [
        (preset, name)
        for preset, names in METHODS_OF_PRESET.items()
        if preset.endswith("_relativistic")
        for name in names
    ],
)
def test_a_relativistic_preset_is_its_plain_one_with_the_loss_and_both_penalties(preset: str, name: str) -> None:
    config, plain = load(name, preset), load(name, preset.removesuffix("_relativistic"))
    ours, others = config.method, plain.method
    assert (ours.adversarial, others.adversarial) == ("relativistic", "nonsaturating")
    # R1 and R2 weigh the same, and together as much as the plain preset's penalty
    assert ours.r1 == ours.r2 == pytest.approx((others.r1 + others.r2) / 2)
    ours.adversarial, ours.r1, ours.r2 = others.adversarial, others.r1, others.r2
    config.preset = plain.preset
    assert config.to_dict() == plain.to_dict()


@pytest.mark.slow
def test_the_published_categories() -> None:
    # epochs 30, 100 and 50 of 2000, 2000 and 16,130 / 8 steps
    for preset, categories, weight, start in (
        ("clusters", [16], 1, 30 * 2000),
        ("mnist28", [32], 50, 100 * 2000),
        ("afhq256_cgpgan", [10], 120, 50 * 16_130 // 8),
        ("afhq256_codebook", [4, 4, 4, 4], 10, 50 * 16_130 // 8),
    ):
        config = load("cgpgan", preset)
        method = METHODS["cgpgan"].Settings(**vars(config.method))
        assert config.latent.categories == categories
        assert (vars(method)["cgp_weight"], vars(method)["prior_start_step"]) == (weight, start)
    assert load("cgpgan", "afhq256_codebook").latent.law == "uniform"
    mixed = vars(load("cagan", "clusters").method)
    assert (mixed["mix_rate"], mixed["mix_epoch_steps"]) == (0.005, 1000)
    assert mixed["category_probabilities"] == [0.1, 0.2, 0.3, 0.4]
    assert load("cagan", "clusters").distributed.streams == 2
    assert load("cagan", "clusters").data.label_probabilities == [0.4, 0.3, 0.2, 0.1]
    assert load("cagan", "mnist28").data.label_probabilities == [0.55, *[0.05] * 9]
    assert load("acgan", "mnist28").data.label_probabilities == [0.55, *[0.05] * 9]
    for name in ("dlsgan", "msegan", "infogan", "vanilla", "posthoc_encoder"):
        config = load(name, "ffhq256")
        assert (config.network.family, config.optimizer.name, config.method.r1) == ("skip", "adamw", 10)
        assert load(name, "ffhq256_comparison").network.family == "residual"
    for name in ("dlsgan", "msegan", "infogan"):
        for preset in ("mnist32", "celeba128"):
            assert vars(load(name, preset).method)["variance_start"] == 1.0
