"""What users give as latents, categories and numbers: taken as tensors, or refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentscale.errors import UserError
from latentscale.inversion.inverter import Inverter
from latentscale.inversion.tensor_input import as_categories, as_integer, as_latents, as_tensor
from latentscale.inversion.trained_model import model_folder
from latentscale.methods.aedlsgan import AEDLSGAN
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec
from tiny_models import DIM, model_of, tiny_model

ROWS = [[0.5, -1.25, 2.0, 0.0], [1.0, 3.0, -0.75, 8.0]]
WANTED = "numbers"


class Frame:
    """Like a table of pandas: NumPy takes it as an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(ROWS, dtype=dtype)


@pytest.mark.parametrize(
    "values",
    [
        ROWS,
        tuple(map(tuple, ROWS)),
        np.array(ROWS),
        np.array(ROWS, dtype=np.float16),
        np.array(ROWS, dtype=">f4"),
        np.array(ROWS)[::-1][::-1],
        np.asfortranarray(ROWS),
        np.ma.masked_array(ROWS, mask=False),
        [np.array(row) for row in ROWS],
        [torch.tensor(row) for row in ROWS],
        torch.tensor(ROWS),
        torch.tensor(ROWS, dtype=torch.bfloat16),
        torch.tensor(ROWS, requires_grad=True),
        torch.tensor(ROWS).T.contiguous().T,
        Frame(),
    ],
)
def test_everything_that_holds_the_same_numbers_is_the_same_tensor(values: Any) -> None:
    latents = as_latents(values, 4)
    assert latents.double().tolist() == ROWS
    assert not latents.requires_grad


def test_an_array_is_copied_and_whole_numbers_become_floats() -> None:
    array = np.ones((1, 2), dtype=np.int32)
    latents = as_latents(array, 2)
    array[:] = 7
    assert latents.dtype == torch.float64
    assert latents.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [3.0]], "latents cannot be used as an array"),
        ("text", "latents are of type <U4"),
        (b"bytes", "latents are of type |S5"),
        (None, "latents are of type NoneType"),
        ({"latents": ROWS}, "latents are of type dict"),
        ([["1", "2"]], "latents are of type <U1"),
        ([[1.0, None]], "latents are of type list"),
        (np.array([[1 + 2j, 0]]), "latents are of type complex128"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "latents are of type datetime64"),
        (np.zeros((1, 2), dtype=np.longdouble), "latents are of type float128"),
        (np.zeros(2, dtype=[("a", "f4")]), "latents are of type [('a', '<f4')]"),
        (np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]), "latents have masked values"),
        (np.array([[True, False]]), "latents are of type bool"),
        (torch.zeros(1, 2, dtype=torch.complex64), "latents are of type complex64"),
        (torch.zeros(1, 2, dtype=torch.float8_e4m3fn), "latents are of type float8_e4m3fn"),
        (torch.zeros(1, 2).to_sparse(), "latents are a tensor that is sparse"),
        (torch.zeros(1, 2, device="meta"), "latents are a tensor that is sparse, nested, quantized or without content"),
        ([torch.zeros(2), torch.zeros(3)], "latents are tensors of different shapes"),
        ([torch.zeros(2), torch.zeros(2).double()], "latents are tensors of different shapes, types"),
        ([0.0, 1.0], "latents have shape [2], but the model takes [n, 2]: add a batch dimension, latents[None]"),
        (np.zeros((3, 4)), "latents have shape [3, 4], but the model takes [n, 2]"),
        (np.zeros((0, 2)), "latents have shape [0, 2]"),
        (3.5, "latents have shape []"),
        ([], "latents have shape [0]"),
        ([[1.0, float("nan")]], "latents contain NaN"),
        (np.array([[np.inf, 0]]), "latents contain NaN or infinite"),
    ],
    ids=str,
)
def test_what_are_no_latents_is_refused(values: Any, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        as_latents(values, 2)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_object_that_fails_to_become_an_array_is_named() -> None:
    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise KeyError("column")

    with pytest.raises(UserError, match=r"^images cannot be used as an array \('column'\): give numbers$"):
        as_tensor(Broken(), "images", WANTED)


@pytest.mark.parametrize("values", [[[0, 2], [1, 0]], np.array([[0, 2], [1, 0]], dtype=np.uint8)])
def test_categories(values: Any) -> None:
    categories = as_categories(values, 2, (2, 3))
    assert categories.dtype == torch.int64
    assert categories.tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.0, 1.0]], "categories have shape [1, 2] and type float64: they must be integers [1, 2]"),
        ([0, 1], "categories have shape [2] and type int64"),
        ([[0, 3]], "categories contain numbers from 0 to 3: they must be integers [1, 2]"),
        ([[-1, 0]], "categories contain numbers from -1 to 0"),
        (np.array([[0, 2**64 - 1]], dtype=np.uint64), "categories contain numbers from -1 to 0"),
        ("01", "categories are of type <U2"),
    ],
)
def test_what_are_no_categories_is_refused(values: Any, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        as_categories(values, 1, (2, 3))
    assert message in str(refusal.value)


def test_integers_of_every_library_are_taken() -> None:
    for value in (3, np.int16(3), np.array(3), torch.tensor(3), True + 2):
        assert as_integer(value, "count", 1, 3) == 3
    for value, message in (
        (3.0, "count must be an integer, not 3.0"),
        ("3", "count must be an integer, not 3"),
        (None, "count must be an integer, not null"),
        ([3], r"count must be an integer, not \[3\]"),
        (0, "count must be from 1 to 3, got 0"),
        (4, "count must be from 1 to 3, got 4"),
    ):
        with pytest.raises(UserError, match=f"^{message}$"):
            as_integer(value, "count", 1, 3)
    assert as_integer(10**30, "count", 1) == 10**30
    with pytest.raises(UserError, match=r"^count must be >= 1, got 0$"):
        as_integer(0, "count", 1)


CALLS: list[tuple[str, Callable[[Inverter], object], str]] = [
    ("count of texts", lambda i: i.generate("4", 0), "count must be an integer, not 4"),
    ("count in floats", lambda i: i.generate(4.0, 0), "count must be an integer, not 4.0"),
    ("more than memory", lambda i: i.generate(10**15, 0), "count=1000000000000000 needs at least"),
    ("more than sizes", lambda i: i.generate(2**70, 0), "count=1180591620717411303424 needs at least"),
    ("a seed below 0", lambda i: i.generate(1, -1), "seed must be from 0 to 18446744073709551615, got -1"),
    ("a seed of 65 bits", lambda i: i.generate(1, 2**64), "seed must be from 0 to 18446744073709551615"),
    ("categories that it has not", lambda i: i.generate(1, 0, [[0]]), "takes no categories: leave them out"),
    ("a list of texts", lambda i: i.decode(["0", "1"]), "latents are of type <U1"),
    ("styles that it has not", lambda i: i.mix_styles([[0.0] * DIM], [[1.0] * DIM], 0), "has no styles to mix"),
    ("attributes that it has not", lambda i: i.edit([[0.0] * DIM], 0, 1), "has no attribute directions"),
    ("a device in floats", lambda i: Inverter.load("run", 0.5), "run does not exist"),
    ("batches of halves", lambda i: Inverter(i.model, 0.5), "batch_images must be an integer, not 0.5"),
    ("scores of one", lambda i: i.ood_score_of_latents(np.zeros(DIM)), "add a batch dimension"),
    ("objects", lambda i: i.encode(np.array([object()])), "images are of type ndarray"),
    ("a type that is not computed with", lambda i: i.encode(np.zeros((1, 1, 8, 8), dtype=np.longdouble)), "float128"),
    ("unequal arrays", lambda i: i.encode([np.zeros((1, 8, 8)), np.zeros((1, 7, 8))]), "cannot be used as an array"),
    ("a sparse tensor", lambda i: i.encode(torch.zeros(1, 1, 8, 8).to_sparse()), "images are a tensor that is sparse"),
    ("files and arrays", lambda i: i.encode(["a.png", np.zeros((1, 8, 8))]), "image files and something else"),
    ("no images", lambda i: i.encode([]), "got no images"),
]


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    return Inverter(tiny_model())


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS])
def test_wrong_calls_are_refused(call: Callable[[Inverter], object], message: str, inverter: Inverter) -> None:
    with pytest.raises(UserError) as refusal:
        call(inverter)
    assert message in str(refusal.value)


def test_arrays_and_lists_give_what_tensors_give(inverter: Inverter) -> None:
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = inverter.encode(images)
    assert torch.equal(inverter.encode(list(images.numpy())), latents)
    assert torch.equal(inverter.encode(list(images)), latents)
    decoded = inverter.decode(latents)
    assert torch.equal(inverter.decode(latents.numpy()), decoded)
    assert torch.equal(inverter.decode(latents.tolist()), decoded)
    assert torch.equal(inverter.ood_score_of_latents(latents.tolist()), inverter.ood_score(images))
    assert torch.equal(inverter.generate(np.int64(2), np.uint8(3)).images, inverter.generate(2, 3).images)


def test_attributes_are_edited_to_a_number_or_to_one_for_each() -> None:
    inverter = Inverter(model_of(AEDLSGAN, NetworkSettings(family="mlp", widths=[16]), ModelSpec((2,), DIM, (2,))))
    latents = inverter.generate(2, 0).latents
    for target in (0.5, [0.5, -1.0], np.array([0.5, -1.0]), torch.tensor([0.5, -1.0])):
        moved = inverter.edit(latents.tolist(), 0, target)
        scores = inverter.attribute_scores(moved / inverter.scale)[:, 0]
        assert torch.allclose(scores, torch.as_tensor(target).to(scores).expand(2), atol=1e-5)
    for wrong in (float("nan"), [1.0, 2.0, 3.0], "1", [1.0, float("inf")]):
        with pytest.raises(UserError, match="target"):
            inverter.edit(latents, 0, wrong)


def test_a_folder_with_a_name_that_is_too_long_or_in_a_loop_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / ("x" * 300), tmp_path / "loop"):
        with pytest.raises(UserError, match=r"cannot be read \(File name too long\)|does not exist"):
            model_folder(path)
