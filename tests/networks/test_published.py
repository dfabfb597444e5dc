"""The networks of the published settings: parameter counts layer by layer, and what holds for every family."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.factory import (
    FAMILIES,
    NetworkSettings,
    build_classifier,
    build_conditional_generator,
    build_discriminator,
    build_generator,
)
from latentscale.networks.initialisation import initialize
from latentscale.networks.layers import EqualizedDownConv2d, EqualizedUpConv2d
from latentscale.networks.spec import ModelSpec

LATENT = 6
HEADS = Heads(adversarial=2, latent=LATENT, classes=3)
BASE_7_FAMILIES = ("mnist28", "recovery", "dcgan")


def toy(family: str, **more: object) -> NetworkSettings:
    return NetworkSettings(family=family, widths=[3, 4, 5], base_width=8, **more)  # type: ignore[arg-type]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def initialized(network: nn.Module) -> nn.Module:
    """In float64 with a run's initial weights, but with biases that are not all zero."""
    network.double()
    initialize(network, 3, "network")
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.copy_(0.1 * noise(*parameter.shape))
    return network


def pairs() -> Iterator[tuple[str, NetworkSettings, tuple[int, ...]]]:
    for family in FAMILIES:
        yield family, toy(family), (3, 16, 16)
    for family in BASE_7_FAMILIES:
        yield f"{family} from 7", toy(family), (1, 28, 28)
    yield "style synthesis", toy("style", mapping_layers=0), (3, 16, 16)
    yield "mnist28 extra", toy("mnist28", extra_width=11), (1, 28, 28)


PAIRS = {name: (settings, shape) for name, settings, shape in pairs()}


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    settings, shape = PAIRS[name]
    return (
        initialized(build_generator(settings, LATENT, shape)),
        initialized(build_discriminator(settings, LATENT, shape, HEADS)),
    )


def codebook(sizes: tuple[int, ...] = (3, 2)) -> nn.Module:
    return initialized(build_conditional_generator(toy("codebook"), ModelSpec((3, 16, 16), LATENT, sizes)))


def choices(rows: int, sizes: tuple[int, ...] = (3, 2)) -> Tensor:
    labels = [torch.arange(rows) % size for size in sizes]
    parts = [F.one_hot(label, size) for label, size in zip(labels, sizes, strict=True)]
    return torch.cat(parts, dim=1).double()


# ---- parameter counts


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def conv(inputs: int, outputs: int, kernel: int, bias: bool = True) -> int:
    return inputs * outputs * kernel**2 + (outputs if bias else 0)


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def parameter_counts(settings: NetworkSettings, latent: int, shape: tuple[int, ...], heads: Heads) -> tuple[int, int]:
    with torch.device("meta"):
        return (
            parameter_count(build_generator(settings, latent, shape)),
            parameter_count(build_discriminator(settings, latent, shape, heads)),
        )


def test_anodlsgan_mnist() -> None:
    settings = NetworkSettings(family="mnist32", widths=[128, 256, 512], base_width=1024)
    generator = dense(256, 16 * 1024) + conv(128, 1, 1)
    for before, after in ((1024, 512), (512, 256), (256, 128)):
        generator += conv(before, after, 3) + conv(after, after, 3)
    discriminator = conv(1, 128, 1) + dense(16 * 1024, 1) + dense(16 * 1024, 256)
    for width in (128, 256, 512):
        discriminator += conv(width, width, 3) + conv(width, 2 * width, 3)
    assert parameter_counts(settings, 256, (1, 32, 32), Heads(1, 256)) == (generator, discriminator)


@pytest.mark.slow
def test_cgpgan_mnist() -> None:
    settings = NetworkSettings(family="mnist28", widths=[128, 256], base_width=256)
    spec = ModelSpec((1, 28, 28), 256, (32,))
    with torch.device("meta"):
        generator, classifier = build_conditional_generator(settings, spec), build_classifier(settings, spec)
    expected = dense(256 + 32, 49 * 256) + conv(256, 256, 2) + 2 * conv(256, 256, 3)
    expected += conv(256, 128, 2) + 2 * conv(128, 128, 3) + conv(128, 1, 1)
    assert parameter_count(generator) == expected
    expected = conv(1, 128, 1) + 2 * conv(128, 128, 3) + conv(128, 128, 2)
    expected += conv(128, 256, 3) + conv(256, 256, 3) + conv(256, 256, 2) + conv(256, 256, 3) + dense(49 * 256, 32)
    assert parameter_count(classifier) == expected
    settings.extra_width = 512  # CAGAN's
    with torch.device("meta"):
        discriminator = build_discriminator(settings, 256, (1, 28, 28), Heads(adversarial=10))
    extra = dense(49 * 256, 512) + dense(512, 10) - dense(49 * 256, 32)
    assert parameter_count(discriminator) == expected + extra


STEPS = ((512, 512), (512, 512), (512, 512), (512, 256), (256, 128), (128, 64))


@pytest.mark.slow
@pytest.mark.parametrize("pages", [None, False, True])
def test_cgpgan_and_codebook_at_256(pages: bool | None) -> None:
    base = 512 if pages is None else 1024
    labels, size, latent = (1, 10, 1024) if pages is None else (4, 4, 1024)
    settings = NetworkSettings(family="cgpgan" if pages is None else "codebook", base_width=base, pages=bool(pages))
    spec = ModelSpec((3, 256, 256), latent, (size,) * labels)
    with torch.device("meta"):
        generator, classifier = build_conditional_generator(settings, spec), build_classifier(settings, spec)
        discriminator = build_discriminator(settings, latent, spec.shape, Heads(adversarial=labels * size))
    expected = conv(64, 3, 1)
    for before, after in ((base, 512), *STEPS[1:]):
        expected += conv(before, after, 2, bias=False) + conv(before, after, 3) + conv(after, after, 3)
    if pages is None:
        expected += dense(1024 + 10, 2 * 1024) + dense(2 * 1024, 16 * 512)
    elif pages:
        expected += dense(1024, 16 * 512) + labels * size * (16 * 512 // labels)
    else:
        expected += dense(1024 + 16, 16 * 1024)
    assert parameter_count(generator) == expected

    hidden = 2 * 1024 if pages is None else 2 * labels * size
    expected = conv(3, 64, 1) + conv(512, base, 3) + dense(16 * base, hidden) + dense(hidden, labels * size)
    for before, after in ((64, 64), (64, 128), (128, 256), (256, 512), (512, 512), (512, 512)):
        expected += conv(before, after, 2, bias=False) + conv(before, after, 3) + conv(after, after, 3)
    assert parameter_count(classifier) == parameter_count(discriminator) == expected


def test_clusters() -> None:
    settings = NetworkSettings(family="mlp", widths=[512] * 4)
    generator = dense(256, 512) + 3 * dense(512, 512) + dense(512, 2)
    discriminator = dense(2, 512) + 3 * dense(512, 512) + dense(512, 16)
    assert parameter_counts(settings, 256, (2,), Heads(adversarial=16)) == (generator, discriminator)
    settings.extra_width = 512
    assert parameter_counts(settings, 256, (2,), Heads(adversarial=16))[1] == discriminator + dense(512, 512)


def test_anodlsgan_celeba() -> None:
    settings = NetworkSettings(family="style", widths=[128, 256, 512, 512, 512], base_width=512)
    generator = 2 * dense(512, 512) + 512 * 16 + conv(512, 3, 1)
    for before, after in ((512, 512), (512, 512), (512, 512), (512, 256), (256, 128)):
        generator += dense(512, before) + conv(before, after, 3)
        generator += dense(512, after) + conv(after, after, 3) + conv(after, 3, 1, bias=False)
    assert parameter_counts(settings, 512, (3, 128, 128), Heads(1, 512))[0] == generator


def test_latent_recovery() -> None:
    settings = NetworkSettings(family="recovery", widths=[128, 256], base_width=512)

    def normed(inputs: int, outputs: int) -> int:  # without bias; the norm has a scale and a shift
        return conv(inputs, outputs, 3, bias=False) + 2 * outputs

    generator = dense(256, 49 * 512) + 2 * 512 + normed(512, 256) + 2 * normed(256, 256)
    generator += normed(256, 128) + 2 * normed(128, 128) + conv(128, 1, 1)
    discriminator = normed(1, 128) + normed(128, 256) + 2 * normed(256, 256)
    discriminator += normed(256, 512) + 2 * normed(512, 512) + dense(49 * 512, 1)
    assert parameter_counts(settings, 256, (1, 28, 28), Heads(1)) == (generator, discriminator)


def test_invgans_backbones() -> None:
    dcgan = NetworkSettings(family="dcgan", widths=[64, 128])
    generator = dense(100, 49 * 128) + 2 * 128 + conv(128, 64, 4) + 2 * 64 + conv(64, 1, 4)
    discriminator = conv(1, 64, 4) + conv(64, 128, 4) + dense(49 * 128, 1) + dense(49 * 128, 100)
    assert parameter_counts(dcgan, 100, (1, 28, 28), Heads(1, 100)) == (generator, discriminator)

    biggan = NetworkSettings(family="biggan", widths=[128, 256, 256], base_width=512)
    generator = dense(128, 16 * 512) + 2 * 128 + conv(128, 3, 3)
    for before, after in ((512, 256), (256, 256), (256, 128)):
        generator += dense(128, 2 * before) + dense(128, 2 * after)
        generator += conv(before, after, 3) + conv(after, after, 3) + conv(before, after, 1, bias=False)
    discriminator = dense(16 * 512, 1) + dense(16 * 512, 128)
    for before, after in ((3, 128), (128, 256), (256, 512)):
        discriminator += conv(before, after, 3) + conv(after, after, 3) + conv(before, after, 1, bias=False)
    assert parameter_counts(biggan, 128, (3, 32, 32), Heads(1, 128)) == (generator, discriminator)


# ---- what holds for every family


@pytest.mark.parametrize("name", PAIRS)
def test_shapes_and_gradients(name: str) -> None:
    generator, discriminator = pair(name)
    image = generator(noise(2, LATENT))
    assert image.shape == (2, *PAIRS[name][1])
    seen = discriminator(image)
    assert isinstance(seen, DiscriminatorOutput)
    assert (seen.adversarial.shape, seen.latent.shape, seen.classes.shape) == ((2, 2), (2, LATENT), (2, 3))
    assert seen.log_variance is None
    assert seen.features.dim() == 2
    total = sum(part.square().sum() for part in seen if part is not None)
    parameters = dict(generator.named_parameters()) | dict(discriminator.named_parameters())
    gradients = torch.autograd.grad(total, [*generator.parameters(), *discriminator.parameters()])
    assert all(bool(gradient.isfinite().all() and gradient.abs().sum() > 0) for gradient in gradients), parameters


@pytest.mark.parametrize("name", PAIRS)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    generator, discriminator = pair(name)
    z = noise(4, LATENT)
    images = generator(z)
    torch.testing.assert_close(torch.cat([generator(row) for row in z.split(1)]), images, rtol=1e-10, atol=1e-11)
    together, alone = discriminator(images), [discriminator(row) for row in images.split(1)]
    for part in ("adversarial", "latent", "classes", "features"):
        expected = torch.cat([getattr(each, part) for each in alone])
        torch.testing.assert_close(getattr(together, part), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", PAIRS)
def test_forward_changes_neither_state_nor_input(name: str) -> None:
    for network, x in zip(pair(name), (noise(2, LATENT), noise(2, *PAIRS[name][1])), strict=True):
        network.train()
        state = {
            part: tensor.detach().clone() for part, tensor in [*network.named_parameters(), *network.named_buffers()]
        }
        attributes = [{k: v for k, v in vars(part).items() if k[0] != "_"} for part in network.modules()]
        given = x.clone()
        network(x)
        assert torch.equal(x, given)
        after = dict([*network.named_parameters(), *network.named_buffers()])
        assert after.keys() == state.keys()
        assert all(torch.equal(state[part], after[part]) for part in state)
        assert attributes == [{k: v for k, v in vars(part).items() if k[0] != "_"} for part in network.modules()]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_compiled_generators_compute_the_same(name: str) -> None:
    torch._dynamo.reset()
    generator, _ = pair(name)
    z = noise(2, LATENT)
    compiled = torch.compile(generator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), generator(z), rtol=1e-12, atol=1e-13)
    parameters = list(generator.parameters())
    ours = torch.autograd.grad(compiled(z).square().sum(), parameters)
    theirs = torch.autograd.grad(generator(z).square().sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PAIRS if "synthesis" not in name])
def test_every_discriminator_supports_gradient_penalties(name: str) -> None:
    # R1 differentiates an input gradient; here it is compared with finite differences
    _, discriminator = pair(name)
    x = noise(2, *PAIRS[name][1])
    weight = next(p for part, p in discriminator.named_parameters() if part.endswith("weight"))

    def penalty() -> Tensor:
        value, pull = torch.func.vjp(lambda image: discriminator(image).adversarial.sum(), x)
        return pull(torch.ones_like(value))[0].square().sum()

    (gradient,) = torch.autograd.grad(penalty(), [weight])
    direction = noise(*weight.shape)
    step = 1e-8  # small enough to cross no leaky ReLU's kink, most likely
    with torch.no_grad():
        weight.add_(step * direction)
        above = penalty()
        weight.sub_(2 * step * direction)
        below = penalty()
    slope = float((above - below) / (2 * step))
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-3)


PUBLISHED = {
    "mnist32": (NetworkSettings(family="mnist32", widths=[128, 256, 512], base_width=1024), 256, (1, 32, 32)),
    "mnist28": (NetworkSettings(family="mnist28", widths=[128, 256], base_width=256), 256, (1, 28, 28)),
    "recovery": (NetworkSettings(family="recovery", widths=[128, 256], base_width=512), 256, (1, 28, 28)),
    "style": (NetworkSettings(family="style", widths=[16, 32, 64, 64, 64], base_width=64), 256, (3, 128, 128)),
    "style of 8": (
        NetworkSettings(family="style", widths=[16, 32, 64], base_width=64, mapping_layers=8),
        512,
        (3, 32, 32),
    ),
    "dcgan": (NetworkSettings(family="dcgan", widths=[64, 128]), 100, (1, 28, 28)),
    "biggan": (NetworkSettings(family="biggan", widths=[64, 64, 64], base_width=64), 128, (3, 32, 32)),
    "cgpgan": (NetworkSettings(family="cgpgan", widths=[16, 32, 64, 64], base_width=64), 64, (3, 64, 64)),
    "codebook": (NetworkSettings(family="codebook", widths=[16, 32, 64, 64], base_width=128), 64, (3, 64, 64)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_scale_of_an_initialized_networks_output(name: str) -> None:
    # neither vanishing nor exploding: N(0, 1) weights without 1/√fan_in would be off by a factor of the width
    settings, latent, shape = PUBLISHED[name]
    generator = build_generator(settings, latent, shape)
    discriminator = build_discriminator(settings, latent, shape, Heads(1, latent))
    initialize(generator, 1, "generator")
    initialize(discriminator, 1, "discriminator")
    with torch.no_grad():
        image = generator(noise(16, latent).float())
        seen = discriminator(torch.rand(16, *shape) * 2 - 1)
    assert 0.03 < float(image.std()) < 4
    # samples differ from their mean image
    assert float(image.std(0).mean()) > 0.03 * float(image.std())
    assert 0.003 < float(seen.latent.square().mean().sqrt()) < 6


# ---- single parts


@pytest.mark.parametrize("size", [4, 8, 32])
def test_resampling_convolutions_with_kernels_of_two(size: int) -> None:
    # up: repeat every pixel 2×2, convolve with taps at (j, j - 1), blur
    # down: blur, convolve with taps at (j, j + 1), average 2×2 pixels; zero padding everywhere
    ones = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    taps = (torch.outer(ones, ones) / 64)[None, None]

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 2, 1, 2)), taps.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])

    up, x = initialized(EqualizedUpConv2d(3, 5, size, kernel_size=2, gain=0.5)), noise(2, 3, size, size)
    repeated = F.pad(x.repeat_interleave(2, 2).repeat_interleave(2, 3), (1, 0, 1, 0))
    flipped = up.weight.transpose(0, 1).flip(2, 3)
    expected = 0.5 * (blurred(F.conv2d(repeated, flipped) / math.sqrt(3 * 4)) + up.bias[:, None, None])
    torch.testing.assert_close(up(x), expected, rtol=1e-11, atol=1e-12)

    down = initialized(EqualizedDownConv2d(3, 5, size, gain=0.5, kernel_size=2))
    tapped = F.conv2d(F.pad(blurred(x), (0, 2, 0, 2)), down.weight)[:, :, :size, :size] / math.sqrt(3 * 4)
    torch.testing.assert_close(down(x), 0.5 * F.avg_pool2d(tapped, 2), rtol=1e-11, atol=1e-12)


def test_the_codebook_looks_pages_up() -> None:
    generator = codebook()
    book = generator.codebook
    assert book.pages.shape == (3 + 2, 4 * 4 * 4 // 2)
    assert not torch.equal(book.pages[0], book.pages[1])
    category = torch.tensor([[0.0, 1, 0, 0, 1], [0, 0, 1, 1, 0]], dtype=torch.float64)
    expected = torch.stack([torch.cat([book.pages[1], book.pages[4]]), torch.cat([book.pages[2], book.pages[3]])])
    torch.testing.assert_close(book(category), expected, rtol=0, atol=0)
    soft = torch.tensor([[0.25, 0.75, 0, 0.5, 0.5]], dtype=torch.float64)
    mean = torch.cat([0.25 * book.pages[0] + 0.75 * book.pages[1], 0.5 * (book.pages[3] + book.pages[4])])
    torch.testing.assert_close(book(soft), mean[None], rtol=1e-13, atol=1e-13)


@pytest.mark.slow
def test_the_codebook_generator_trains_only_the_pages_it_used() -> None:
    generator = codebook()
    z, category = noise(2, LATENT), choices(2)  # pages 0 and 1 of the first label, both of the second
    image = generator(z, category)
    assert image.shape == (2, 3, 16, 16)
    gradients = torch.autograd.grad(image.square().sum(), list(generator.parameters()))
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)
    names = [name for name, _ in generator.named_parameters()]
    moved = gradients[names.index("codebook.pages")].abs().sum(1) > 0
    assert moved.tolist() == [True, True, False, True, True]
    alone = torch.cat([generator(z[i : i + 1], category[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(alone, image, rtol=1e-11, atol=1e-12)
    torch._dynamo.reset()
    compiled = torch.compile(generator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, category), image, rtol=1e-12, atol=1e-13)


def test_a_number_of_labels_that_does_not_divide_the_pages_is_refused() -> None:
    for sizes, base in (((2, 2, 2), 8), ((2,), 7)):
        settings = NetworkSettings(family="codebook", widths=[4], base_width=base)
        with pytest.raises(UserError, match=r"network\.base_width.*network\.pages=false"):
            build_conditional_generator(settings, ModelSpec((3, 16, 16), LATENT, sizes))


def test_each_convolution_can_have_its_own_style() -> None:
    synthesis, _ = pair("style synthesis")
    one, other = noise(1, LATENT), noise(2, LATENT)[1:]
    assert synthesis.style_count == 4
    same = one[:, None].expand(-1, 4, -1)
    torch.testing.assert_close(synthesis(same), synthesis(one), rtol=0, atol=0)
    coarse = torch.cat([other[:, None].expand(-1, 2, -1), same[:, 2:]], dim=1)
    for image in (synthesis(one), synthesis(other)):
        assert not torch.allclose(synthesis(coarse), image)


def test_norms_by_their_definition() -> None:
    from latentscale.networks.normalisation import GroupNorm

    x = noise(2, 6, 3, 3)
    for groups in (2, 6):
        norm = initialized(GroupNorm(6, groups))
        parts = x.reshape(2, groups, -1)
        expected = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        expected = expected.view_as(x) * (1 + norm.scale_bias)[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(norm(x), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "heads", "message"),
    [
        (toy("mnist28", minibatch_deviation=True), Heads(2), "extra_width"),
        (toy("residual", minibatch_deviation=True), Heads(2), "only network.family=mlp and mnist28"),
        (toy("mnist28", minibatch_deviation=True, extra_width=5), Heads(1, 4), "an encoder"),
    ],
)
def test_where_minibatch_deviation_is_refused(settings: NetworkSettings, heads: Heads, message: str) -> None:
    with pytest.raises(UserError, match=r"network\.minibatch_deviation=true") as refusal:
        build_discriminator(settings, LATENT, (1, 28, 28) if settings.family == "mnist28" else (3, 16, 16), heads)
    assert message in str(refusal.value)


@pytest.mark.slow
def test_minibatch_deviation_of_mnist28_sees_its_own_stream() -> None:
    settings = toy("mnist28", minibatch_deviation=True, extra_width=5)
    network = initialized(build_discriminator(settings, LATENT, (1, 28, 28), Heads(2)))
    x = noise(6, 1, 28, 28)
    together = network(x, streams=2).adversarial
    for stream in range(2):
        torch.testing.assert_close(network(x[stream::2]).adversarial, together[stream::2], rtol=1e-11, atol=1e-12)
    assert not torch.allclose(network(x).adversarial, together)


@pytest.mark.parametrize("shape", [(1, 21, 21), (3, 30, 30), (3, 4, 4), (1, 28, 14)])
def test_image_sides_that_a_family_does_not_support(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"power of two or 7 times a power of two"):
        build_generator(toy("dcgan"), LATENT, shape)
    with pytest.raises(UserError, match=r"network\.family=mnist32"):
        build_generator(toy("mnist32"), LATENT, (1, 28, 28))
