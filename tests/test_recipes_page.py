"""docs/recipes.md says of methods, presets and losses what the code says."""

import re

import pytest

from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.methods.description import describe
from latentscale.methods.registry import METHODS
from launching import ROOT

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """The cells of the rows under a table's head."""
    rows = PAGE.split(f"\n{head}\n", 1)[1].splitlines()[1:]
    end = next(number for number, row in enumerate(rows) if not row.startswith("|"))
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[:end]]


METHOD_ROWS = {name.strip("` "): (needs, gives) for name, needs, gives in table("| method | needs | gives |")}


def test_every_method_has_its_row_in_the_registrys_order() -> None:
    assert list(METHOD_ROWS) == list(METHODS), "docs/recipes.md: one row per method; `latentscale methods` prints them"


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_row_says_what_the_method_says(name: str) -> None:
    needs, gives = (cell.replace("`", "") for cell in METHOD_ROWS[name])
    method, described = METHODS[name], describe(METHODS[name])
    assert needs == (", ".join(described.needs) or "images alone")
    assert gives == ", ".join(described.gives)
    # the class itself, in case its description were wrong
    claims = {
        "labels": method.labelled,
        "latent.categories": method.categorical,
        "(optional)": method.categories_optional,
        "a finished run's generator": method.frozen_generator,
    }
    assert {claim: claim in needs for claim in claims} == claims
    claims = {"generation": method.generates, "inversion": method.inverts}
    assert {claim: claim in gives for claim in claims} == claims


def test_the_methods_that_train_no_gan_are_those_without_a_generator_to_draw_from() -> None:
    (named,) = re.findall(r"like the training data an image is; ((?:`\w+`\s?(?:and\s)?)+)\s*are rivals in that", PAGE)
    assert set(re.findall(r"`(\w+)`", named)) == {name for name, method in METHODS.items() if not method.generates}


def test_every_adversarial_loss_has_its_row_and_the_methods_without_one_are_named() -> None:
    rows = table("| loss | minimised by the discriminator | minimised by the generator |")
    assert [re.findall(r"`(\w+)`", row[0])[0] for row in rows] == list(ADVERSARIAL)
    (named,) = re.findall(r"Every method takes it, except (.+?), which", PAGE, re.DOTALL)
    without = {name for name, method in METHODS.items() if not method.adversarial}
    assert set(re.findall(r"`(\w+)`", named)) == without


def test_every_preset_is_named() -> None:
    section = PAGE.split("\n## Presets\n")[1].split("\n## ")[0]
    presets = {path.stem for path in (ROOT / "recipes" / "presets").glob("*.yaml")}
    named = re.findall(r"`([a-z]+\d*\w*)`", section)
    assert presets <= set(named)
    listed = {name for row in table("| preset | data |") for name in re.findall(r"`(\w+)`", row[0])}
    assert listed <= presets
