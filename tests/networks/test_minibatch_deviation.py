"""The minibatch standard deviation layer: by hand, within streams, and as an option of the mlp discriminator."""

import math

import pytest
import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator
from latentscale.networks.initialisation import initialize
from latentscale.networks.minibatch_deviation import MinibatchDeviation

IN, OUT = 3, 5


def layer() -> MinibatchDeviation:
    made = MinibatchDeviation(IN, OUT).double()
    initialize(made, 3, "layer")
    with torch.no_grad():
        made.bias.copy_(torch.linspace(-0.4, 0.4, OUT))
    return made


def by_hand(made: MinibatchDeviation, x: Tensor) -> Tensor:
    """The layer's output for one stream ``[b, IN]``, number by number."""
    b, out = len(x), []
    mean = [sum(x[i, k] for i in range(b)) / b for k in range(IN)]
    std = [torch.sqrt(sum((x[i, k] - mean[k]) ** 2 for i in range(b)) / b + 1e-8) for k in range(IN)]
    for i in range(b):
        for j in range(OUT):
            f = sum(made.features.weight[j, k] * x[i, k] for k in range(IN)) / math.sqrt(IN)
            s = sum(made.deviation.weight[j, k] * std[k] for k in range(IN)) / math.sqrt(IN)
            y = (f + s) / math.sqrt(2) + made.bias[j]
            out.append(y if y > 0 else 0.2 * y)
    return torch.stack(out).view(b, OUT)


def samples(count: int) -> Tensor:
    return torch.randn(count, IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_by_hand_with_its_gradients() -> None:
    made = layer()
    x = samples(4).requires_grad_(True)
    found, expected = made(x), by_hand(made, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    inputs = [x, *made.parameters()]
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_a_hand_worked_number() -> None:
    # features 1 and 5: mean 3, population variance 4, deviation 2; (f + 3·2)/√2 with weights 1 and 3
    made = MinibatchDeviation(1, 1).double()
    with torch.no_grad():
        made.features.weight.fill_(1.0)
        made.deviation.weight.fill_(3.0)
    found = made(torch.tensor([[1.0], [5.0]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[7.0], [11.0]]).double() / math.sqrt(2), rtol=1e-8, atol=0)


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_streams_do_not_see_each_other(streams: int) -> None:
    made = layer()
    x = samples(4 * streams)
    together = made(x, streams)
    for stream in range(streams):
        torch.testing.assert_close(together[stream::streams], by_hand(made, x[stream::streams]), rtol=1e-12, atol=1e-14)
    if streams > 1:
        assert (together - made(x)).abs().max() > 1e-3  # as one batch the result differs


def test_equal_samples_have_finite_gradients() -> None:
    made = layer().float()
    x = torch.ones(4, IN, requires_grad=True)
    made(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_under_bf16_the_deviation_is_taken_in_float32() -> None:
    made = layer().float()
    x = (100 + samples(8)).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(x)
    exact = by_hand(made.double(), x.double())
    torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02 * exact.abs().max().item())


def test_as_an_option_of_the_mlp_discriminator() -> None:
    settings = NetworkSettings(family="mlp", widths=[6, 7], extra_width=4, minibatch_deviation=True)
    network = build_discriminator(settings, 2, (IN,), Heads(adversarial=2)).double()
    initialize(network, 0, "discriminator")
    assert network.batchwise
    x = samples(8)
    h = x
    for dense in network.layers:
        h = torch.nn.functional.leaky_relu(h @ dense.weight.T / math.sqrt(dense.weight.shape[1]) + dense.bias, 0.2)
    assert h.shape == (8, 7)
    seen = network(x, streams=2)
    torch.testing.assert_close(seen.features, network.deviation(h, 2), rtol=1e-12, atol=1e-14)
    head = network.heads.adversarial
    torch.testing.assert_close(seen.adversarial, seen.features @ head.weight.T / 2 + head.bias, rtol=1e-12, atol=1e-14)
    # two dense layers of 7 × 4 instead of one, with one bias
    plain = build_discriminator(
        NetworkSettings(family="mlp", widths=[6, 7], extra_width=4), 2, (IN,), Heads(adversarial=2)
    )
    assert not plain.batchwise
    sizes = [sum(p.numel() for p in each.parameters()) for each in (network, plain)]
    assert sizes[0] - sizes[1] == 7 * 4


def test_the_published_width_of_cagans_discriminator() -> None:
    # 4 × dense 512 and one more, on two coordinates, four outputs
    settings = NetworkSettings(family="mlp", widths=[512] * 4, extra_width=512)
    network = build_discriminator(settings, 256, (2,), Heads(adversarial=4))
    assert sum(p.numel() for p in network.parameters()) == 3 * 512 + 4 * (512 * 512 + 512) + 4 * 513


@pytest.mark.parametrize(
    ("settings", "heads", "part"),
    [
        (NetworkSettings(family="residual", minibatch_deviation=True), Heads(), "only network.family=mlp"),
        (NetworkSettings(family="skip", minibatch_deviation=True), Heads(), "only network.family=mlp"),
        (NetworkSettings(family="mlp", minibatch_deviation=True), Heads(latent=4), "encoder"),
    ],
)
def test_where_it_is_refused(settings: NetworkSettings, heads: Heads, part: str) -> None:
    with pytest.raises(UserError, match=rf"network\.minibatch_deviation=true.*{part}.*set it to false"):
        build_discriminator(settings, 4, (1, 8, 8), heads)
