"""Each method's losses and gradients against its equations, written out sample by sample in float64."""

import pytest
import torch
from steps import assert_compiles, assert_losses_in_float32, assert_streams_apart, run
from steps import value_by_hand as by_hand
from torch import Tensor
from toys import D_Z, toy_batch, toy_method

from latentscale.methods.base import Method
from latentscale.methods.phase import Batch

SCALE = (torch.tensor([0.9, 0.3, 1.2], dtype=torch.float64) * D_Z / 2.4).sqrt()  # sqrt(d_z v / Σ v)
V = torch.tensor([0.9, 0.3, 1.2], dtype=torch.float64)
STREAMS, B = 2, 4


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def heads(method: Method, x: Tensor):
    return method.networks["discriminator"](x[None])


def encoder_loss(name: str, method: Method, z: Tensor, x: Tensor) -> Tensor:
    """One sample's L_enc (Cho 2025, eq. 15, 16, 31)."""
    out = heads(method, x)
    error = z - out.latent[0]
    if name == "msegan":
        return sum(error[i] ** 2 for i in range(D_Z)) / D_Z
    if name == "infogan":
        lv = out.log_variance[0]
        return sum(lv[i] + error[i] ** 2 / (torch.exp(lv[i]) + 1e-7) for i in range(D_Z)) / D_Z
    return sum((error[i] * SCALE[i]) ** 2 for i in range(D_Z)) / D_Z


def generate(name: str, method: Method, z: Tensor) -> Tensor:
    return method.networks["generator"]((z * SCALE if name in ("dlsgan", "pvdgan") else z)[None])[0]


def discriminator_loss(name: str, method: Method, batch: Batch) -> Tensor:
    samples = []
    for real, z in zip(batch.real, batch.draws["discriminator_latent"], strict=True):
        fake = generate(name, method, z).detach()
        x = real.clone().requires_grad_(True)
        a_r, a_f = heads(method, x).adversarial[0, 0], heads(method, fake).adversarial[0, 0]
        (slope,) = torch.autograd.grad(a_r, x, create_graph=True)
        loss = softplus(-a_r) + softplus(a_f) + 0.7 * (slope**2).sum()
        if name != "vanilla":
            loss = loss + encoder_loss(name, method, z, fake)
        samples.append(loss)
    return sum(samples) / len(samples)


def generator_loss(name: str, method: Method, batch: Batch) -> Tensor:
    adversarial, encoder, reconstruction = [], [], []
    for stream in range(STREAMS):
        for row in range(B):
            index = row * STREAMS + stream  # the first sample of each stream, then the second of each
            z = batch.draws["generator_latent"][index]
            paired = name == "pvdgan" and row < B // 2
            if paired:
                real = heads(method, batch.real[index])
                z = real.latent[0].detach() + z * torch.sqrt(torch.clamp(1 - V, min=0))
            x = generate(name, method, z)
            adversarial.append(softplus(-heads(method, x).adversarial[0, 0]))
            if paired:
                difference = real.features[0].detach() - heads(method, x).features[0]
                reconstruction.append((difference**2).mean())
            elif name != "vanilla":
                encoder.append(encoder_loss(name, method, z, x))
    return sum(sum(part) / len(part) for part in (adversarial, encoder, reconstruction) if part)


@pytest.mark.parametrize("name", ["vanilla", "msegan", "infogan", "dlsgan", "pvdgan"])
def test_both_phases_are_the_papers_equations(name: str) -> None:
    method = toy_method(name)
    batch = toy_batch(method, STREAMS, B)
    (d_terms, g_terms), (d_found, g_found) = run(method, batch)
    d_loss, d_expected = by_hand(method, "discriminator", lambda: discriminator_loss(name, method, batch))
    g_loss, g_expected = by_hand(method, "generator", lambda: generator_loss(name, method, batch))
    for found, expected in ((d_terms.loss, d_loss), (g_terms.loss, g_loss)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    # the same gradients, on exactly the parameters that the phase trains and on no other
    for found_all, expected_all in ((d_found, d_expected), (g_found, g_expected)):
        assert found_all.keys() == expected_all.keys()
        for key in expected_all:
            torch.testing.assert_close(found_all[key], expected_all[key], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["vanilla", "msegan", "infogan", "dlsgan", "pvdgan"])
def test_every_parameter_of_a_phase_is_trained_and_no_other(name: str) -> None:
    method = toy_method(name)
    _, (d_found, g_found) = run(method, toy_batch(method))
    assert d_found.keys() == {f"discriminator.{key}" for key, _ in method.networks["discriminator"].named_parameters()}
    assert g_found.keys() == {f"generator.{key}" for key, _ in method.networks["generator"].named_parameters()}


def test_what_is_kept_and_observed_carries_no_gradient() -> None:
    method = toy_method("pvdgan")
    (d_terms, g_terms), _ = run(method, toy_batch(method))
    for terms in (d_terms, g_terms):
        for tensor in [*terms.kept.values(), *terms.observed.values(), *terms.measured.values()]:
            assert not tensor.requires_grad
    # hence L_rec reaches neither E through z_r nor F through y_r, though both of D's outputs fed it
    assert set(d_terms.kept) == {"latent", "features"}


def test_observations_pool_two_batches_for_dlsgan_and_one_and_a_half_for_pvdgan() -> None:
    counts = {}
    for name in ("dlsgan", "pvdgan"):
        method = toy_method(name)
        results, _ = run(method, toy_batch(method, STREAMS, B))
        counts[name] = sum(len(terms.observed["variance"]) for terms in results) / (STREAMS * B)
    assert counts == {"dlsgan": 2.0, "pvdgan": 1.5}


def test_pvdgan_observes_the_fresh_half_of_the_generators_batch() -> None:
    method = toy_method("pvdgan")
    batch = toy_batch(method, STREAMS, B)
    (_, g_terms), _ = run(method, batch)
    fresh = [row * STREAMS + stream for row in range(B // 2, B) for stream in range(STREAMS)]
    expected = torch.stack(
        [heads(method, generate("pvdgan", method, batch.draws["generator_latent"][index])).latent[0] for index in fresh]
    )
    torch.testing.assert_close(g_terms.observed["variance"], expected.detach(), rtol=1e-12, atol=0)


def test_dlsgan_without_its_encoder_term_trains_the_generator_as_the_adversarial_loss_alone() -> None:
    without = toy_method("dlsgan", encoder_in_generator=False)
    batch = toy_batch(without)
    (_, terms), (_, found) = run(without, batch)

    def adversarial() -> Tensor:
        return sum(
            softplus(-heads(without, generate("dlsgan", without, z)).adversarial[0, 0])
            for z in batch.draws["generator_latent"]
        ) / len(batch.real)

    _, expected = by_hand(without, "generator", adversarial)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-13)
    # it is still measured, and v still observes it
    assert terms.measured["encoder"] > 0
    assert len(terms.observed["variance"]) == len(batch.real)


def test_the_weights_of_the_terms() -> None:
    plain, weighted = toy_method("pvdgan"), toy_method("pvdgan", encoder_weight=3.0, reconstruction_weight=5.0)
    (d, g), _ = run(plain, toy_batch(plain))
    (dw, gw), _ = run(weighted, toy_batch(weighted))
    torch.testing.assert_close(dw.loss - d.loss, 2 * d.measured["encoder"], rtol=1e-12, atol=1e-14)
    expected = 2 * g.measured["encoder"] + 4 * g.measured["reconstruction"]
    torch.testing.assert_close(gw.loss - g.loss, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("r1", "r2"), [(0.7, 0.0), (0.0, 0.3), (0.7, 0.3)])
def test_penalties_and_their_lazy_interval(r1: float, r2: float) -> None:
    every = toy_method("dlsgan", r1=r1, r2=r2)
    lazy = toy_method("dlsgan", r1=r1, r2=r2, penalty_interval_steps=4)
    batch = toy_batch(every)
    full = run(every, batch)[0][0]
    with_penalty = run(lazy, batch)[0][0]
    without = run(lazy, batch._replace(penalise=False))[0][0]
    assert set(full.measured) & {"r1", "r2"} == {name for name, weight in (("r1", r1), ("r2", r2)) if weight}
    assert not set(without.measured) & {"r1", "r2"}
    # an interval of k multiplies the term by k in the step that carries it
    torch.testing.assert_close(with_penalty.loss - without.loss, 4 * (full.loss - without.loss), rtol=1e-11, atol=1e-14)
    # R2 is the squared slope at the fakes
    if r2:
        slopes = []
        for z in batch.draws["discriminator_latent"]:
            x = generate("dlsgan", every, z).detach().requires_grad_(True)
            slopes.append((torch.autograd.grad(heads(every, x).adversarial[0, 0], x)[0] ** 2).sum())
        torch.testing.assert_close(full.measured["r2"], sum(slopes) / len(slopes), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["vanilla", "msegan", "infogan", "dlsgan", "pvdgan"])
def test_streams_together_are_streams_apart(name: str) -> None:
    """Accumulation over streams: the mean of the parts' losses and gradients is the whole's."""
    method = toy_method(name)
    assert_streams_apart(method, toy_batch(method, STREAMS, B))


@pytest.mark.parametrize("adversarial", ["nonsaturating", "least_squares", "hinge", "wasserstein"])
def test_under_bf16_every_loss_is_taken_in_float32(adversarial: str) -> None:
    method = toy_method("pvdgan", adversarial=adversarial)
    assert_losses_in_float32(method, toy_batch(method))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vanilla", "msegan", "infogan", "dlsgan", "pvdgan"])
def test_a_phase_compiles_whole_and_gives_the_same_numbers(name: str) -> None:
    method = toy_method(name)
    assert_compiles(method, toy_batch(method))
