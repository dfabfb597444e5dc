"""What an Inverter can do with models of particular methods: categories, attribute edits, style mixing."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from latentscale.errors import UserError
from latentscale.inversion.inverter import Inverter
from latentscale.methods.aedlsgan import AEDLSGAN
from latentscale.methods.cgpgan import CGPGAN
from latentscale.methods.dlsgan import DLSGAN
from latentscale.methods.invgan import InvGAN
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec
from tiny_models import DIM, model_of, tiny_model

MLP = NetworkSettings(family="mlp", widths=[12])
SIZES = (3, 2)
STYLE = NetworkSettings(family="style", widths=[4, 4], base_width=4, mapping_layers=0)


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def by_category(tmp_path: Path) -> Inverter:
    model = model_of(CGPGAN, MLP, ModelSpec((2,), DIM, SIZES))
    model.method.category_prior.probabilities.copy_(torch.tensor([0.7, 0.0, 0.3, 0.2, 0.8]))  # type: ignore[attr-defined]
    model.save(tmp_path)
    return Inverter.load(tmp_path, "cpu", batch_images=40)


def test_categories_are_drawn_or_chosen(by_category: Inverter) -> None:
    drawn = by_category.generate(300, seed=2)
    assert drawn.categories is not None
    assert drawn.categories.shape == (300, 2)
    counts = torch.bincount(drawn.categories[:, 0], minlength=3).tolist()
    assert counts[1] == 0
    assert 180 < counts[0] < 240  # a binomial of 300 and .7: four standard deviations
    # the returned categories are those of the samples
    again = by_category.decode(drawn.latents, categories=drawn.categories)
    torch.testing.assert_close(again, drawn.images, rtol=0, atol=0)
    chosen = torch.tensor([[1, 0]] * 300)
    other = by_category.generate(300, seed=2, categories=chosen)
    assert torch.equal(other.latents, drawn.latents)
    assert torch.equal(other.categories, chosen)
    assert not torch.allclose(other.images, drawn.images)
    one_hot = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]).expand(300, -1)
    expected = by_category.model.decode(drawn.latents, one_hot)
    torch.testing.assert_close(other.images, expected)


def test_invalid_categories_are_refused(by_category: Inverter) -> None:
    with pytest.raises(UserError, match="also takes categories"):
        by_category.decode(latents(2))
    for wrong in (torch.tensor([[0, 2], [0, 0]]), torch.tensor([[-1, 0], [0, 0]]), torch.tensor([0, 1]), latents(2)):
        with pytest.raises(UserError, match=r"^categories .* must be integers \[2, 2\] .* from 0 to below \[3, 2\]$"):
            by_category.decode(latents(2), categories=wrong)
    with pytest.raises(UserError, match="takes no categories"):
        Inverter(tiny_model()).generate(1, 0, categories=torch.tensor([[0]]))


def test_an_edited_latent_has_exactly_the_target_score(tmp_path: Path) -> None:
    model_of(AEDLSGAN, MLP, ModelSpec((2,), DIM, SIZES)).save(tmp_path)
    inverter = Inverter.load(tmp_path, "cpu")
    z = latents(5)
    scores = inverter.attribute_scores(z)
    # three columns for the first label, one for the binary one: ((z∘s)·w)/√d
    weight = inverter.model.method.statistics["attributes"].weight
    expected = (z * inverter.scale) @ weight / math.sqrt(DIM)
    torch.testing.assert_close(scores, expected)
    assert scores.shape == (5, 4)
    edited = inverter.edit(z, 3, 1.5)
    found = edited @ weight / math.sqrt(DIM)
    torch.testing.assert_close(found[:, 3], torch.full((5,), 1.5), rtol=0, atol=1e-5)
    # the edit moves along w alone
    moved = edited - z * inverter.scale
    along = (moved @ weight[:, 3]).abs() / (moved.norm(dim=1) * weight[:, 3].norm())
    torch.testing.assert_close(along, torch.ones(5), rtol=0, atol=1e-5)
    assert inverter.decode(edited, already_scaled=True).shape == (5, 2)
    with pytest.raises(UserError, match="attribute must be from 0 to 3, got 4"):
        inverter.edit(z, 4, 0.0)
    with pytest.raises(UserError, match="pvdgan has no attribute directions"):
        Inverter(tiny_model()).edit(z, 0, 0.0)


def test_samples_of_invgan_come_with_the_mapped_latents(tmp_path: Path) -> None:
    model_of(InvGAN, STYLE, ModelSpec((1, 16, 16), DIM)).save(tmp_path)
    inverter = Inverter.load(tmp_path, "cpu", batch_images=2)
    images, mapped, categories = inverter.generate(5, seed=3)
    assert categories is None
    torch.testing.assert_close(inverter.decode(mapped), images)
    drawn = inverter.model.draw_latents(5, 3, 7).float()  # type: ignore[arg-type]
    torch.testing.assert_close(mapped, inverter.model.method.networks["mapping"](drawn))


@pytest.mark.parametrize(("kind", "own_mapping"), [(InvGAN, 0), (DLSGAN, 2)])
def test_style_mixing(kind: type, own_mapping: int, tmp_path: Path) -> None:
    network = NetworkSettings(family="style", widths=[4, 4], base_width=4, mapping_layers=own_mapping)
    model_of(kind, network, ModelSpec((1, 16, 16), DIM)).save(tmp_path)
    inverter = Inverter.load(tmp_path, "cpu", batch_images=2)
    coarse, fine = latents(3), latents(3, seed=1)
    # with all four styles of one latent the result is that latent's image
    torch.testing.assert_close(inverter.mix_styles(coarse, fine, 4), inverter.decode(coarse))
    torch.testing.assert_close(inverter.mix_styles(coarse, fine, 0), inverter.decode(fine))
    mixed = [inverter.mix_styles(coarse, fine, k) for k in range(5)]
    for one, other in pairwise(mixed):
        assert not torch.allclose(one, other)
    if not own_mapping:
        styles = torch.stack([coarse, coarse, fine, fine], dim=1)
        torch.testing.assert_close(mixed[2], inverter.model.method.networks["generator"](styles).clamp(-1, 1))


def test_invalid_style_mixing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network\.family=residual.*has no styles to mix"):
        Inverter(tiny_model()).mix_styles(latents(1), latents(1), 1)
    inverter = Inverter(model_of(InvGAN, STYLE, ModelSpec((1, 16, 16), DIM)))
    with pytest.raises(UserError, match="first_fine must be from 0 to 4, got 5"):
        inverter.mix_styles(latents(1), latents(1), 5)
    with pytest.raises(UserError, match=r"coarse and fine latents have shapes \[1, 6\] and \[2, 6\]"):
        inverter.mix_styles(latents(1), latents(2), 1)
