"""A loss can be read in one file: few classes, one forward each, and no hooks that a subclass fills in."""

import inspect

import pytest
from test_rivals import method_of
from toys import toy_method

from latentscale.methods.base import Method
from latentscale.methods.phase import Phase
from latentscale.methods.registry import METHODS

MOST_CLASSES = 3
MOST_LINES = 25


def ours(kind: type) -> list[type]:
    return [each for each in kind.__mro__ if each.__module__.startswith("latentscale.")]


def built(name: str) -> Method:
    kind = METHODS[name]
    sizes = (3, 2) if kind.labelled or kind.categorical else ()
    return method_of(name) if name == "classifier" else toy_method(name, sizes)


@pytest.mark.parametrize("name", METHODS)
def test_methods_and_phases_resolve_through_few_classes(name: str) -> None:
    method = built(name)
    assert len(ours(type(method))) <= MOST_CLASSES
    for phase in method.phases:
        assert len(ours(type(phase))) <= MOST_CLASSES
        assert ours(type(phase))[-1] is Phase


@pytest.mark.parametrize("name", METHODS)
def test_a_phases_forward_is_written_out_where_the_phase_is_defined(name: str) -> None:
    for phase in built(name).phases:
        assert "forward" in vars(type(phase))
        assert len(inspect.getsource(type(phase).forward).splitlines()) <= MOST_LINES
        # a phase has what every phase has and nothing that another class would override
        added = {key for key, value in vars(type(phase)).items() if inspect.isfunction(value)} - set(vars(Phase))
        assert not added
