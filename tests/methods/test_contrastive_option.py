"""Elastic InfoGAN's contrastive option: the views of an image, and what the option adds to Q's loss."""

import math

import pytest
import torch
from steps import assert_compiles, assert_same, run
from torch import Tensor

from latentscale.errors import UserError
from latentscale.latents.priors import make_prior
from latentscale.methods.base import Method
from latentscale.methods.contrastive import view
from latentscale.methods.elastic_infogan import ElasticInfoGAN, ElasticInfoGANSettings
from latentscale.methods.phase import Batch
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.initialisation import initialize
from latentscale.networks.spec import ModelSpec

SPEC = ModelSpec((1, 6, 6), 3, (3, 2))
STREAMS, B = 2, 3
STILL: dict[str, float] = {"view_rotation_degrees": 0.0, "view_zoom": 1.0, "view_shift": 0.0, "view_gamma": 1.0}


def strengths(**changed: object) -> ElasticInfoGANSettings:
    return ElasticInfoGANSettings(contrastive_weight=1.0, **{**STILL, **changed})  # type: ignore[arg-type]


def picture(count: int = 1) -> Tensor:
    torch.manual_seed(3)
    return torch.rand(count, 1, 6, 6, dtype=torch.float64) * 2 - 1


def drawn(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_a_view_of_no_strength_is_the_image_itself() -> None:
    x, draws = picture(5), torch.rand(5, 6, dtype=torch.float64)
    torch.testing.assert_close(view(strengths(), x, draws), x, rtol=0, atol=1e-12)


def test_a_quarter_turn_a_mirror_and_a_shift_are_exact() -> None:
    x = picture()
    # the uniform 3/4 is half of the strength, 1/4 minus that
    turned = view(strengths(view_rotation_degrees=180.0), x, drawn(0.75, 0.5, 0.5, 0.5, 0.5, 0.9))
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), rtol=0, atol=1e-12)
    back = view(strengths(view_rotation_degrees=180.0), x, drawn(0.25, 0.5, 0.5, 0.5, 0.5, 0.9))
    torch.testing.assert_close(back, torch.rot90(x, -1, (2, 3)), rtol=0, atol=1e-12)
    mirrored = view(strengths(view_flip=True), x, drawn(0.5, 0.5, 0.5, 0.5, 0.5, 0.3))
    torch.testing.assert_close(mirrored, x.flip(3), rtol=0, atol=1e-12)
    kept = view(strengths(view_flip=True), x, drawn(0.5, 0.5, 0.5, 0.5, 0.5, 0.7))
    torch.testing.assert_close(kept, x, rtol=0, atol=1e-12)
    # half of two sixths of the side: one pixel; what comes in repeats the border
    moved = view(strengths(view_shift=2 / 6), x, drawn(0.5, 0.5, 0.75, 0.5, 0.5, 0.9))
    torch.testing.assert_close(moved[..., :5], x[..., 1:], rtol=0, atol=1e-12)
    torch.testing.assert_close(moved[..., 5], x[..., 5], rtol=0, atol=1e-12)
    lifted = view(strengths(view_shift=2 / 6), x, drawn(0.5, 0.5, 0.5, 0.75, 0.5, 0.9))
    torch.testing.assert_close(lifted[..., :5, :], x[..., 1:, :], rtol=0, atol=1e-12)


def test_an_image_enlarged_twice_shows_its_middle() -> None:
    x = picture()
    # twice: strength 4 at the uniform 3/4; an even side's middle pixels lie between those of the input
    shown = view(strengths(view_zoom=4.0), x, drawn(0.5, 0.75, 0.5, 0.5, 0.5, 0.9))
    # output pixel 0 looks at 1.25 of the input's pixels, pixel 1 at 1.75
    across = 0.75 * x[..., 1] + 0.25 * x[..., 2]
    expected = 0.75 * across[..., 1] + 0.25 * across[..., 2]
    torch.testing.assert_close(shown[..., 0, 0], expected, rtol=0, atol=1e-12)


def test_gamma_by_hand() -> None:
    x = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)
    brighter = view(strengths(view_gamma=4.0), x, drawn(0.5, 0.5, 0.5, 0.5, 0.25, 0.9))
    # ¾ to the power ½
    torch.testing.assert_close(brighter, torch.full_like(x, 2 * math.sqrt(0.75) - 1), rtol=1e-12, atol=0)


def method(**settings: object) -> Method:
    chosen = ElasticInfoGANSettings(contrastive_weight=2.5, contrastive_temperature=0.3, **settings)  # type: ignore[arg-type]
    networks = ElasticInfoGAN.build_networks(chosen, NetworkSettings(family="mlp", widths=[7]), SPEC)
    for name, network in networks.items():
        initialize(network, 4, name)
        network.double()
    return ElasticInfoGAN(chosen, networks, make_prior("normal"), SPEC)


def batch_for(made: Method) -> Batch:
    torch.manual_seed(8)
    count = STREAMS * B
    draws = {
        name: (draw.quantile or made.prior.quantile)(torch.rand(count, draw.size, dtype=torch.float64))
        for name, draw in made.draws().items()
    }
    return Batch(picture(count), draws, STREAMS, True, schedule=made.schedule(0, B), state=made.state())


def test_it_adds_the_contrastive_loss_of_the_reals_to_that_of_q_alone() -> None:
    made = method()
    batch = batch_for(made)
    (d_terms, g_terms), (d_found, g_found) = run(made, batch)
    plain = method()
    plain.settings.contrastive_weight = 0.0
    (d_plain, g_plain), (d_without, g_without) = run(plain, batch)
    classifier = made.networks["classifier"].requires_grad_(True)
    seen = classifier(batch.real).classes
    other = classifier(view(made.settings, batch.real, batch.draws["view"])).classes
    losses = []
    for stream in range(STREAMS):
        views = [*seen[stream::STREAMS], *other[stream::STREAMS]]
        for i, a in enumerate(views):
            powers = [torch.exp((a @ v) / (a.norm() * v.norm()) / 0.3) for v in views]
            losses.append(-torch.log(powers[(i + B) % (2 * B)] / (sum(powers) - powers[i])))
    expected = 2.5 * sum(losses) / len(losses)
    torch.testing.assert_close(d_terms.loss, d_plain.loss + expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(d_terms.measured["contrastive"], (expected / 2.5).detach(), rtol=1e-11, atol=0)
    slopes = dict(
        zip(
            (f"classifier.{name}" for name, _ in classifier.named_parameters()),
            torch.autograd.grad(expected, list(classifier.parameters())),
            strict=True,
        )
    )
    assert_same(d_found, {name: value + slopes.get(name, 0.0) for name, value in d_without.items()})
    assert torch.equal(g_terms.loss, g_plain.loss)
    assert_same(g_found, g_without)


@pytest.mark.slow
def test_the_phases_compile_with_it() -> None:
    made = method(view_flip=True)
    assert_compiles(made, batch_for(made))


def test_what_it_cannot_work_with_is_refused() -> None:
    settings = ElasticInfoGANSettings(contrastive_weight=1.0)
    with pytest.raises(UserError, match=r"method\.contrastive_weight .*distributed\.streams"):
        ElasticInfoGAN.validate(settings, "normal", 1)
    ElasticInfoGAN.validate(settings, "normal", 2)
    ElasticInfoGAN.validate(ElasticInfoGANSettings(), "normal", 1)
    with pytest.raises(UserError, match=r"method\.contrastive_weight needs images"):
        ElasticInfoGAN.build_networks(settings, NetworkSettings(family="mlp", widths=[7]), ModelSpec((2,), 3, (3,)))
