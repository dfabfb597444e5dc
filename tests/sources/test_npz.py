"""NumPy files of images: published ones, their labels and splits, and what is unclear or damaged in them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import built, fill, origins, pixels, samples

from latentscale.containers.numpy_files import list_arrays
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions


def grey(count: int, first: int = 0) -> np.ndarray:
    """Images that differ in every pixel, ``[count, 6, 6]``."""
    return (np.arange(count * 36).reshape(count, 6, 6) + 7 * first).astype(np.uint8)


def rgb(count: int, first: int = 0) -> np.ndarray:
    """``[count, 4, 4, 3]``."""
    return (np.arange(count * 48).reshape(count, 4, 4, 3) * 5 + first).astype(np.uint8)


def save(path: Path, compressed: bool = False, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def labels(folder: Path) -> list[str]:
    names = ShardedDataset.open(folder).labels
    return [names[sample.label] for sample in samples(folder) if sample.label is not None]


@pytest.mark.parametrize("compressed", [False, True])
def test_imagenet32_has_ten_parts_and_labels_from_one(tmp_path: Path, compressed: bool) -> None:
    """Rows of 3072 values, red first; the parts come in the order of their numbers."""
    images = {part: rgb(3, 10 * part) for part in (1, 2, 10)}
    for part, content in images.items():
        flat = content.transpose(0, 3, 1, 2).reshape(3, 48)
        save(
            tmp_path / f"in/train_data_batch_{part}.npz",
            compressed,
            data=flat,
            labels=np.array([1, 2, part]),
            mean=flat.mean(0),
        )
    flat = rgb(2).transpose(0, 3, 1, 2).reshape(2, 48)
    save(tmp_path / "in/val_data.npz", compressed, data=flat, labels=[2, 1])
    built("npz", tmp_path / "in", tmp_path / "out", shuffle=False)
    expected = np.concatenate(list(images.values())).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(pixels(tmp_path / "out/train"), expected)
    assert labels(tmp_path / "out/train") == ["1", "2", "1", "1", "2", "2", "1", "2", "10"]
    np.testing.assert_array_equal(pixels(tmp_path / "out/test"), rgb(2).transpose(0, 3, 1, 2))
    assert labels(tmp_path / "out/test") == ["2", "1"]
    assert origins(tmp_path / "out/train")[3] == "train_data_batch_2.npz/data[0]"
    notes = list_source("npz", tmp_path / "in", SourceOptions()).notes
    assert "ignored the arrays mean" in notes
    origins_of = [
        note for note in notes if note.startswith(f"labels of 11 images from {tmp_path}/in/train_data_batch_1")
    ]
    assert len(origins_of) == 1
    assert origins_of[0].endswith(f" and {tmp_path}/in/val_data.npz array labels (2)")
    assert "no test image has the label 10" in notes


def test_kuzushiji_49_has_a_file_for_each_array(tmp_path: Path) -> None:
    for prefix in ("k49", "kmnist"):
        for part, count in (("train", 5), ("test", 3)):
            save(tmp_path / f"{prefix}/{prefix}-{part}-imgs.npz", True, arr_0=grey(count, len(part)))
            save(tmp_path / f"{prefix}/{prefix}-{part}-labels.npz", True, arr_0=np.arange(count, dtype=np.uint8) % 2)
        fill(tmp_path, {f"{prefix}/k49_classmap.csv": b"index,codepoint,char\n0,U+3042,x\n"})
        built("npz", tmp_path / prefix, tmp_path / f"{prefix}-out", shuffle=False)
        for part, count in (("train", 5), ("test", 3)):
            np.testing.assert_array_equal(pixels(tmp_path / f"{prefix}-out/{part}")[:, 0], grey(count, len(part)))
            assert labels(tmp_path / f"{prefix}-out/{part}") == [str(n % 2) for n in range(count)]


KERAS = {"x_train": grey(4), "y_train": [0, 1, 2, 0], "x_test": grey(2, 3), "y_test": [1, 2]}
MEDMNIST = {
    f"{part}_{kind}": (grey(4) if kind == "images" else np.arange(4)[:, None] % 3)
    for part in ("train", "val", "test")
    for kind in ("images", "labels")
}


@pytest.mark.parametrize("as_npy", [False, True])
def test_names_of_arrays_say_splits(tmp_path: Path, as_npy: bool) -> None:
    def stored(name: str, arrays: dict[str, Any]) -> Path:
        if not as_npy:
            return save(tmp_path / f"{name}.npz", **arrays)
        (tmp_path / name).mkdir()
        for key, array in arrays.items():
            np.save(tmp_path / name / f"{key}.npy", array)
        return tmp_path / name

    assert built("npz", stored("mnist", KERAS), tmp_path / "a", shuffle=False).counts == {"train": 4, "test": 2}
    assert labels(tmp_path / "a/train") == ["0", "1", "2", "0"]
    np.testing.assert_array_equal(pixels(tmp_path / "a/test")[:, 0], grey(2, 3))
    counts = built("npz", stored("bloodmnist", MEDMNIST), tmp_path / "b").counts
    assert counts == {"train": 4, "val": 4, "test": 4}
    some = built("npz", tmp_path / ("mnist" if as_npy else "mnist.npz"), tmp_path / "c", splits="train=x_test")
    assert some.counts == {"train": 2}
    everything = built("npz", tmp_path / ("mnist" if as_npy else "mnist.npz"), tmp_path / "d", split="none")
    assert everything.counts == {"train": 6}


FORMS: dict[str, tuple[Any, dict[str, str], Any]] = {
    "grey": (grey(3), {}, grey(3)[:, None]),
    "grey with an axis": (grey(3)[..., None], {}, grey(3)[:, None]),
    "grey with a first axis": (grey(3)[:, None], {}, grey(3)[:, None]),
    "flat grey": (grey(3).reshape(3, 36), {}, grey(3)[:, None]),
    "rgb": (rgb(3), {}, rgb(3).transpose(0, 3, 1, 2)),
    "rgb, channels first": (rgb(3).transpose(0, 3, 1, 2), {}, rgb(3).transpose(0, 3, 1, 2)),
    "Fortran's order": (np.asfortranarray(rgb(3)), {}, rgb(3).transpose(0, 3, 1, 2)),
    "flat, hwc": (rgb(3).reshape(3, 48), {"layout": "hwc"}, rgb(3).transpose(0, 3, 1, 2)),
    "flat, chw": (rgb(3).transpose(0, 3, 1, 2).reshape(3, 48), {"layout": "chw"}, rgb(3).transpose(0, 3, 1, 2)),
    "three pixels high": (np.ascontiguousarray(rgb(3)[:, :3]), {"layout": "hwc"}, rgb(3)[:, :3].transpose(0, 3, 1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_arrays_of_any_form_are_images(form: str, kind: str, tmp_path: Path) -> None:
    array, options, expected = FORMS[form]
    path = tmp_path / ("some.npy" if kind == "npy" else "some.npz")
    if kind == "npy":
        np.save(path, array)
    else:
        save(path, kind == "compressed", images=array)
    built("npz", path, tmp_path / "out", **options)
    np.testing.assert_array_equal(pixels(tmp_path / "out/train"), expected)
    assert ShardedDataset.open(tmp_path / "out/train").labels == []


UNCLEAR: dict[str, tuple[dict[str, Any], str]] = {
    "flat rgb": (
        {"images": rgb(3).reshape(3, 48)},
        r"a\.npz array images has shape \[3, 48\]: say how a row is ordered, --layout chw .*--layout hwc",
    ),
    "rows that are no squares": ({"images": np.zeros((3, 47), np.uint8)}, r"\[3, 47\], but a row is neither"),
    "one image": ({"images": rgb(1)[0]}, r"\[4, 4, 3\]: this may be one image, .*save image\[None\]"),
    "planes of values": ({"images": np.zeros((5, 3, 16), np.uint8)}, r"\[5, 3, 16\]: this may be one image, or rows"),
    "channels first and last": (
        {"images": np.zeros((2, 3, 9, 3), np.uint8)},
        r"channels may be first or last: say --layout chw or",
    ),
    "four channels": ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, r"\[2, 8, 8, 4\], but images must be np\.uint8"),
    "five axes": ({"images": np.zeros((2, 8, 8, 8, 3), np.uint8)}, r"\[2, 8, 8, 8, 3\], but images must be"),
    "no images": ({"images": np.zeros((0, 8, 8), np.uint8)}, r"\[0, 8, 8\], but images must be"),
    "fractions": ({"images": grey(3) / 255}, r"array images holds float64, but images must be np\.uint8"),
    "objects": ({"images": np.array([None, {}])}, r"array images holds Python objects, which are never unpickled"),
    "two of images": (
        {"images": grey(3), "data": grey(3)},
        r"array images and .*array data may both be the images: choose with --image-field",
    ),
    "no name": (
        {"a": grey(3), "b": grey(3)},
        r"no array that is named images, data or x \(its arrays: a, b\): name the images with --image-field",
    ),
    "unnamed labels": (
        {"arr_0": grey(3), "arr_1": np.arange(3)},
        r"array arr_1 may hold the labels of .*array arr_0: take it with --label-field arr_1, or .*--labels none",
    ),
    "unnamed names": ({"images": grey(3), "who": np.array(["x", "y", "z"])}, r"array who may hold the labels"),
    "two of labels": (
        {"images": grey(3), "labels": np.arange(3), "y": np.arange(3)},
        r"labels and .*array y may both be the labels: choose with --label-field",
    ),
    "labels of another number": (
        {"images": grey(3), "labels": np.arange(2)},
        r"array labels has shape \[2\], but .* holds 3 images",
    ),
    "one-hot labels": (
        {"images": grey(3), "labels": np.eye(3, dtype=int)},
        r"array labels has shape \[3, 3\], .*one-hot labels, save argmax\(1\)",
    ),
    "labels with fractions": (
        {"images": grey(3), "labels": np.arange(3) / 2},
        r"array labels holds float64: labels must be whole",
    ),
    "labels that are objects": (
        {"images": grey(3), "labels": np.array([1, "a", None])},
        r"array labels holds Python objects",
    ),
    "negative labels": (
        {"images": grey(3), "labels": np.array([0, -1, 1])},
        r"array labels\[1\] is -1, as for images without a label",
    ),
    "labels of one split alone": (
        {"x_train": grey(3), "y_train": np.arange(3), "x_test": grey(2)},
        r"array x_test has no labels, but .*array x_train has",
    ),
    "labels without images": (
        {"x_train": grey(3), "y_train": np.arange(3), "y_test": np.arange(3)},
        r"array y_test holds labels, but no images go with it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_unclear_in_arrays_is_named(case: str, tmp_path: Path) -> None:
    arrays, message = UNCLEAR[case]
    with pytest.raises(UserError, match=message) as refused:
        built("npz", save(tmp_path / "a.npz", **arrays), tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_fields_settle_what_is_unclear(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.npz", arr_0=grey(3), arr_1=[2, 1, 2], fine=["x", "y", "x"], images=grey(3, 1), labels=[0, 0, 0]
    )
    built("npz", path, tmp_path / "a", image_field="arr_0", label_field=("arr_1",))
    np.testing.assert_array_equal(pixels(tmp_path / "a/train")[:, 0], grey(3))
    assert labels(tmp_path / "a/train") == ["2", "1", "2"]
    built("npz", path, tmp_path / "b", label_field=("fine",))
    assert labels(tmp_path / "b/train") == ["x", "y", "x"]
    np.testing.assert_array_equal(pixels(tmp_path / "b/train")[:, 0], grey(3, 1))
    built("npz", path, tmp_path / "c", image_field="arr_0", labels="none")
    assert labels(tmp_path / "c/train") == []
    for options, message in (
        ({"image_field": "nothing"}, r"--image-field nothing: .* holds the arrays arr_0, arr_1, fine, images, labels"),
        ({"label_field": ("nothing",)}, r"--label-field nothing: .* holds the arrays"),
        ({"labels": "folders"}, r"--labels folders is not used by npz"),
        ({"labels": "none", "label_field": ("fine",)}, r"contradict each other"),
        ({"splits": "train=other"}, r"--splits train=other names none of the arrays"),
    ):
        with pytest.raises(UserError, match=message):
            built("npz", path, tmp_path / "new", **options)
    for name, array in (("pixels", grey(3)), ("targets_of_all", np.arange(3))):
        (tmp_path / "npy").mkdir(exist_ok=True)
        np.save(tmp_path / f"npy/{name}.npy", array)
    built("npz", tmp_path / "npy", tmp_path / "d", image_field="pixels", label_field=("targets_of_all",))
    assert labels(tmp_path / "d/train") == ["0", "1", "2"]


DAMAGED = (
    "npz, cut off", "npz, flipped", "npz, nonsense", "npz, empty", "compressed, cut off", "compressed, flipped",
    "npy, cut off", "npy, longer", "npy, nonsense", "npy, empty",
)  # fmt: skip


def damaged(kind: str) -> tuple[bytes, str]:
    whole, packed, npy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(whole, images=grey(9))
    np.savez_compressed(packed, images=grey(9))
    np.save(npy, grey(9))
    content = {"npz": whole, "compressed": packed, "npy": npy}[kind.split(", ")[0]].getvalue()
    match kind.split(", ")[1]:
        case "cut off":
            content = content[:-100]
        case "longer":
            content += b"x"
        case "flipped":
            content = content[:250] + bytes([content[250] ^ 1]) + content[251:]
        case "nonsense":
            content = b"nonsense" * 9
        case "empty":
            content = b""
    return content, rf"a\.{'npy' if kind.startswith('npy') else 'npz'} cannot be read \("


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named(kind: str, tmp_path: Path) -> None:
    content, message = damaged(kind)
    path = (
        fill(tmp_path, {f"a.{'npy' if kind.startswith('npy') else 'npz'}": content})
        / f"a.{'npy' if kind.startswith('npy') else 'npz'}"
    )
    with pytest.raises(UserError, match=message) as refused:
        built("npz", path, tmp_path / "out", on_error="skip")
    assert "\n" not in str(refused.value)


def test_bombs_and_pickles_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 8, 8)})
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    with pytest.raises(UserError, match=r"the header of images\.npy promises \d+ bytes, but it holds 100"):
        built("npz", tmp_path / "claims.npz", tmp_path / "out")
    monkeypatch.setattr("latentscale.containers.numpy_files.MAX_ARRAY_BYTES", 1000)
    path = save(tmp_path / "bomb.npz", True, images=np.zeros((100, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"images\.npy unpacks to 6400 bytes, more than 1000: save it by np\.savez"):
        built("npz", path, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("../images.txt", b"x")
    with pytest.raises(UserError, match=r"its member \.\./images\.txt is no array"):
        built("npz", tmp_path / "other.npz", tmp_path / "out")


def test_stored_arrays_are_mapped_and_not_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", images=grey(9), labels=np.arange(9))
    images, numbers = list_arrays(path)
    assert isinstance(images.load(), np.memmap)
    np.testing.assert_array_equal(images.load(), grey(9))
    np.testing.assert_array_equal(numbers.load(), np.arange(9))
    [packed] = list_arrays(save(tmp_path / "b.npz", True, images=grey(9)))
    assert packed.load() is packed.load()
    assert not isinstance(packed.load(), np.memmap)


def test_images_that_come_by_label_are_shuffled(tmp_path: Path) -> None:
    by_label = save(tmp_path / "a.npz", images=grey(40), labels=np.arange(40) // 10)
    assert list_source("npz", by_label, SourceOptions()).sorted_by_label
    mixed = save(tmp_path / "b.npz", images=grey(40), labels=np.arange(40) % 4)
    assert not list_source("npz", mixed, SourceOptions()).sorted_by_label
