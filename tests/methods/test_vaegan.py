"""VAEGAN against Cho 2025, eq. 19-24, sample by sample; each of its three losses reaches its own networks alone."""

import pytest
import torch
from steps import assert_compiles, assert_same, assert_streams_apart, assert_trains, by_hand, run
from torch import Tensor
from toys import D_Z, toy_batch, toy_method

from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch
from latentscale.methods.vaegan import VAEGAN, VAEGANSettings

STREAMS, B = 2, 4
WEIGHTS = {"reconstruction_weight": 0.8, "prior_weight": 1.7}


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def latent(method: Method, real: Tensor, noise: Tensor) -> Tensor:
    """z_x of one sample (eq. 19)."""
    seen = method.networks["encoder"](real[None])
    return seen.latent[0] + noise * torch.exp(seen.log_variance[0] / 2)


def judged(method: Method, x: Tensor):
    seen = method.networks["discriminator"](x[None])
    return seen.adversarial[0, 0], seen.features[0]


def generate(method: Method, z: Tensor) -> Tensor:
    return method.networks["generator"](z[None])[0]


def rows(batch: Batch):
    for stream in range(STREAMS):
        for sample in range(B):
            yield sample, sample * STREAMS + stream


def discriminator_loss(method: Method, batch: Batch) -> Tensor:
    losses = []
    for sample, row in rows(batch):
        z = batch.draws["discriminator_latent"][row]
        if sample >= B // 2:
            z = latent(method, batch.real[row], z)
        x = batch.real[row].clone().requires_grad_(True)
        a_r, a_f = judged(method, x)[0], judged(method, generate(method, z).detach())[0]
        (slope,) = torch.autograd.grad(a_r, x, create_graph=True)
        losses.append(softplus(-a_r) + softplus(a_f) + 0.7 * (slope**2).sum())
    return sum(losses) / len(losses)


def adversarial(method: Method, batch: Batch) -> Tensor:
    losses = []
    for sample, row in rows(batch):
        z = batch.draws["generator_latent"][row]
        if sample < B // 2:
            z = latent(method, batch.real[row], z)
        losses.append(softplus(-judged(method, generate(method, z))[0]))
    return sum(losses) / len(losses)


def reconstruction(method: Method, batch: Batch) -> Tensor:
    losses = []
    for sample, row in rows(batch):
        if sample < B // 2:
            z = latent(method, batch.real[row], batch.draws["generator_latent"][row])
            expected = judged(method, batch.real[row])[1].detach()
            losses.append(((judged(method, generate(method, z))[1] - expected) ** 2).mean())
    return sum(losses) / len(losses)


def prior(method: Method, batch: Batch) -> Tensor:
    losses = []
    for sample, row in rows(batch):
        if sample < B // 2:
            seen = method.networks["encoder"](batch.real[row][None])
            mean, lv = seen.latent[0], seen.log_variance[0]
            losses.append(sum(mean[i] ** 2 - lv[i] + torch.exp(lv[i]) for i in range(D_Z)) / D_Z)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("weights", [WEIGHTS, {"reconstruction_weight": 1.0, "prior_weight": 0.0}])
def test_every_loss_reaches_its_own_networks_and_no_other(weights: dict[str, float]) -> None:
    method = toy_method("vaegan", **weights)
    batch = toy_batch(method, STREAMS, B)
    (d_terms, g_terms), (d_found, g_found) = run(method, batch)
    rec, prr = weights["reconstruction_weight"], weights["prior_weight"]
    assert_same(d_found, by_hand(method, {"discriminator": lambda: discriminator_loss(method, batch)}))
    expected = by_hand(
        method,
        {
            "generator": lambda: adversarial(method, batch) + rec * reconstruction(method, batch),
            "encoder": lambda: rec * reconstruction(method, batch) + prr * prior(method, batch),
        },
    )
    assert_same(g_found, expected)
    torch.testing.assert_close(d_terms.loss, discriminator_loss(method, batch), rtol=1e-12, atol=0)
    for name, value in (("adversarial", adversarial), ("reconstruction", reconstruction), ("prior", prior)):
        torch.testing.assert_close(g_terms.measured[name], value(method, batch), rtol=1e-12, atol=0)
    whole = adversarial(method, batch) + rec * reconstruction(method, batch) + prr * prior(method, batch)
    torch.testing.assert_close(g_terms.loss, whole, rtol=1e-12, atol=0)


def test_without_the_bracket_the_adversarial_loss_would_reach_the_encoder() -> None:
    """The positive control of the test above: the difference is far above its tolerance."""
    method = toy_method("vaegan", **WEIGHTS)
    batch = toy_batch(method, STREAMS, B)
    leak = by_hand(method, {"encoder": lambda: adversarial(method, batch)})
    assert max(value.abs().max() for value in leak.values()) > 1e-4


def test_each_phase_trains_all_of_its_networks_and_keeps_no_graph() -> None:
    method = toy_method("vaegan")
    results, (d_found, g_found) = run(method, toy_batch(method))
    assert_trains(d_found, method, "discriminator")
    assert_trains(g_found, method, "generator", "encoder")
    for terms in results:
        assert not any(value.requires_grad for value in (*terms.kept.values(), *terms.measured.values()))


def test_streams_together_are_streams_apart() -> None:
    method = toy_method("vaegan", **WEIGHTS)
    assert_streams_apart(method, toy_batch(method, STREAMS, B))


@pytest.mark.slow
def test_both_phases_compile_whole() -> None:
    method = toy_method("vaegan", **WEIGHTS)
    assert_compiles(method, toy_batch(method))


def test_under_bf16_every_loss_is_taken_in_float32() -> None:
    method = toy_method("vaegan", **WEIGHTS)
    for network in method.networks.values():
        network.float()
    batch = toy_batch(method)
    batch = batch._replace(real=batch.real.float(), draws={name: draw.float() for name, draw in batch.draws.items()})
    for phase in method.phases:
        phase.train_only_owned()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = phase(batch)
        terms.loss.backward()
        assert {value.dtype for value in (terms.loss, *terms.measured.values())} == {torch.float32}
        batch = batch._replace(kept=terms.kept)


def test_what_it_cannot_work_with_is_refused() -> None:
    with pytest.raises(UserError, match=r"latent\.law"):
        VAEGAN.validate(VAEGANSettings(), "uniform", 4)
    with pytest.raises(UserError, match=r"distributed\.streams"):
        VAEGAN.validate(VAEGANSettings(), "normal", 3)


def test_its_own_encoder_inverts() -> None:
    method = toy_method("vaegan")
    x = toy_batch(method).real
    torch.testing.assert_close(method.encode(x), method.networks["encoder"](x).latent)
