"""What each method needs and gives, in words, found from the method itself."""

from typing import NamedTuple

from latentscale.errors import UserError
from latentscale.methods.aedlsgan import AEDLSGAN
from latentscale.methods.base import Method
from latentscale.methods.encoders import EncoderMethod


class Description(NamedTuple):
    """A row in the list of methods: what to give the method, and what it can do once trained."""

    name: str
    paper: str
    needs: list[str]
    gives: list[str]


def describe(method: type[Method]) -> Description:
    """A method in words. What it refuses is found by trying."""
    needs = []
    if method.labelled:
        needs.append("labels")
    if method.categorical:
        needs.append("latent.categories" + (" (optional)" if method.categories_optional else ""))
    if _refuses(method, "normal", 3):
        needs.append("an even number of samples per stream")
    if _refuses(method, "uniform", 4):
        needs.append("a normal prior")
    elif method.dynamic_scale:
        needs.append("a prior of mean 0, variance 1")
    if hasattr(method.Settings(), "generator_run"):
        needs.append("a finished run's generator")
    gives = []
    if method.generates:
        gives.append("generation")
    if method.inverts:
        gives.append("inversion")
    if method.categorical and not method.categories_optional:
        gives.append("categories")
    if issubclass(method, EncoderMethod) or not method.generates:
        gives.append("out-of-distribution scores")
    if issubclass(method, AEDLSGAN):
        gives.append("attribute editing")
    return Description(method.name, method.paper, needs, gives)


def _refuses(method: type[Method], law: str, stream_batch: int) -> bool:
    try:
        method.validate(method.Settings(), law, stream_batch)
    except UserError:
        return True
    return False
