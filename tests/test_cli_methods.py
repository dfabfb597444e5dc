"""``latentscale methods``: every method, with what it needs and gives."""

import sys
from pathlib import Path

from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.methods.description import describe
from latentscale.methods.registry import METHODS
from launching import ROOT, Processes


def test_every_method_is_listed_and_has_its_recipe(processes: Processes) -> None:
    finished = processes.run([str(Path(sys.executable).with_name("latentscale")), "methods"])
    assert finished.code == 0, finished.err
    for name in METHODS:
        assert f" {name} " in finished.out
    for loss in ADVERSARIAL:
        assert loss in finished.out
        assert (ROOT / "recipes" / f"{name}.py").is_file()
    assert {path.stem for path in (ROOT / "recipes").glob("*.py")} == set(METHODS)


def test_needs_and_gifts() -> None:
    pvdgan, cagan, classifier = (describe(METHODS[name]) for name in ("pvdgan", "cagan", "classifier"))
    assert pvdgan.needs == ["an even number of samples per stream", "a normal prior"]
    assert pvdgan.gives == ["generation", "inversion", "out-of-distribution scores"]
    assert (cagan.needs, cagan.gives) == (["labels"], ["generation"])
    assert (classifier.needs, classifier.gives) == (["labels"], ["out-of-distribution scores"])
    assert describe(METHODS["dlsgan"]).needs == ["a prior of mean 0, variance 1"]
    assert describe(METHODS["cgpgan"]).gives == ["generation", "categories"]
    assert describe(METHODS["posthoc_encoder"]).needs == ["a finished run's generator"]
    assert "attribute editing" in describe(METHODS["aedlsgan"]).gives
    without = {name for name, method in METHODS.items() if not method.adversarial}
    assert without == {"autoencoder", "classifier", "posthoc_encoder"}
