"""Image files are fitted to the model as documented, and an error names what cannot be fitted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentscale.errors import UserError
from latentscale.inversion.image_input import as_model_input, image_files, load_images


def test_an_image_of_the_models_shape_is_unchanged(tmp_path: Path) -> None:
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(4, 5, 3) * 4
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images, names, notes = load_images([tmp_path / "a.png"], (3, 4, 5))
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), pixels)
    assert names == [str(tmp_path / "a.png")]
    assert notes == []


def test_the_centre_is_kept_and_the_note_says_so(tmp_path: Path) -> None:
    pixels = np.zeros((4, 10), dtype=np.uint8)
    pixels[:, 3:7] = 200  # the centred square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    images, _, notes = load_images([tmp_path / "wide.png"], (1, 4, 4))
    assert images.unique().tolist() == [200]
    assert notes == [f"{tmp_path / 'wide.png'}: 10x4 centre-cropped to 4x4"]


def test_resizing_down_averages_instead_of_skipping(tmp_path: Path) -> None:
    # a one-pixel checkerboard: skipping pixels would give 0 or 255, an antialiased filter gives their mean
    board = ((np.indices((32, 32)).sum(0) % 2) * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    images, _, notes = load_images([tmp_path / "board.png"], (1, 4, 4))
    assert (images.float() - 127.5).abs().max() < 12
    assert "32x32 resized to 4x4" in notes[0]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.array([[10, 20], [30, 40]], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated: rows are columns, from the right
    Image.fromarray(pixels).save(tmp_path / "rotated.png", exif=exif)
    images, _, notes = load_images([tmp_path / "rotated.png"], (1, 2, 2))
    assert images[0, 0].tolist() == [[30, 10], [40, 20]]
    assert "rotated as its EXIF says" in notes[0]


def test_modes_are_converted(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 77).save(tmp_path / "grey.png")
    images, _, notes = load_images([tmp_path / "grey.png"], (3, 2, 2))
    assert images.unique().tolist() == [77]
    assert "L converted to RGB" in notes[0]
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    images, _, notes = load_images([tmp_path / "clear.png"], (3, 2, 2))
    assert images.unique().tolist() == [255]
    assert "transparency composited over white" in notes[0]
    Image.fromarray(np.full((2, 2), 65535, dtype=np.uint16)).save(tmp_path / "deep.png")
    images, _, notes = load_images([tmp_path / "deep.png"], (1, 2, 2))
    assert images.unique().tolist() == [255]
    assert "16 bits" in notes[0]


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/c.PNG", ".hidden/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    for name in ("scan.pdf", "clip.mpg", "data.h5", "drawing.eps", "photo.HEIC", "sub/raw.cr2"):
        (tmp_path / name).write_bytes(b"content")
    files, notes = image_files([tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in files] == ["a.jpg", "b.png", "sub/c.PNG"]
    assert notes == [
        f"{tmp_path}: ignored 5 files without an image's file name",
        f"{tmp_path}: ignored 1 .cr2 file, which Pillow does not read: convert them to JPEG or PNG first",
        f"{tmp_path}: ignored 1 .heic file, which Pillow does not read: convert them to JPEG or PNG first",
    ]


def test_damaged_images_are_left_out_and_named_where_that_is_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no image")
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    files = sorted(tmp_path.iterdir())
    loaded = load_images(files, (3, 64, 64), skip_damaged=True)
    assert [Path(name).name for name in loaded.names] == ["whole.jpg"]
    assert len(loaded.images) == 1
    left_out = [note for note in loaded.notes if note.startswith("left out: ")]
    names = [Path(note.removeprefix("left out: ").split()[0]).name for note in left_out]
    assert names == ["cut.jpg", "float.tif", "text.png"]
    none = load_images([tmp_path / "text.png"], (3, 4, 4), skip_damaged=True)
    assert (none.names, tuple(none.images.shape)) == ([], (0, 3, 4, 4))


def test_errors_name_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png is not an image"):
        load_images([tmp_path / "text.png"], (1, 2, 2))
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cut\.jpg cannot be read"):
        load_images([tmp_path / "cut.jpg"], (1, 2, 2))
    with pytest.raises(UserError, match="nowhere does not exist"):
        image_files([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty contains no images"):
        image_files([tmp_path / "empty"])
    Image.new("F", (2, 2)).save(tmp_path / "float.tiff")
    with pytest.raises(UserError, match=r"float\.tiff has pixels of mode F"):
        load_images([tmp_path / "float.tiff"], (1, 2, 2))
    with pytest.raises(UserError, match="1 or 3 channels"):
        load_images([tmp_path / "float.tiff"], (4, 2, 2))


@pytest.mark.slow
def test_bytes_are_mapped_to_minus_one_to_one() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    torch.testing.assert_close(as_model_input(pixels, (1, 1, 3)).flatten(), torch.tensor([-1.0, -0.6, 1.0]))
    assert torch.equal(as_model_input(pixels.numpy(), (1, 1, 3)), as_model_input(pixels, (1, 1, 3)))


def test_files_and_pillow_images_are_accepted(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 2), (255, 255, 255))
    image.save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="RGB converted to L"):
        taken = as_model_input([tmp_path / "a.png", image], (1, 2, 2))
    assert torch.equal(taken, torch.ones(2, 1, 2, 2))


SHAPE = (3, 4, 5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(SHAPE), r"shape \[3, 4, 5\].*takes \[n, 3, 4, 5\].*images\[None\]"),
        (torch.zeros(2, 4, 5, 3), "move the channels first"),
        (np.zeros((2, 4, 5, 3), dtype=np.uint8), "move the channels first"),
        (torch.zeros(2, 1, 4, 5), "convert them from 1 to 3 channels"),
        (torch.zeros(2, 3, 8, 8), r"shape \[2, 3, 8, 8\].*resize"),
        (torch.zeros(0, *SHAPE), "no images"),
        (torch.full((2, *SHAPE), 200.0), r"values in \[200, 200\].*x / 127.5 - 1"),
        (torch.full((2, *SHAPE), 1.01), r"takes \[-1, 1\]"),
        (torch.full((2, *SHAPE), torch.nan), "NaN"),
        (torch.zeros((2, *SHAPE), dtype=torch.int64), "type int64.*uint8"),
        (np.full((2, *SHAPE), 1j), "complex128"),
        ([torch.zeros(SHAPE), torch.zeros(1, 4, 5)], "tensors of different shapes"),
        (7, r"shape \[\]"),
        (object(), "type object"),
    ],
)
def test_errors_for_invalid_images_name_the_remedy(images: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        as_model_input(images, SHAPE)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_rounding_beyond_one_is_accepted_and_a_zero_to_one_range_warns() -> None:
    images = torch.linspace(-1.0005, 1.0005, 60).reshape(1, *SHAPE)
    assert torch.equal(as_model_input(images, SHAPE), images)
    with pytest.warns(UserWarning, match=r"2 \* x - 1"):
        as_model_input(torch.rand(1, *SHAPE), SHAPE)
