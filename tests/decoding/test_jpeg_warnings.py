"""JPEG files that libjpeg warns of: extra bytes cost no pixel, lost pixels are refused, with simplejpeg or without."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from layouts import built, contents, fill, noise, pixels, samples
from PIL import Image

from latentscale.decoding.decoder import Decoder
from latentscale.decoding.jpeg_warnings import (
    BAD_CODE,
    CUT_SEGMENT,
    LOST_PLACE,
    followed_warning,
    is_harmless,
    reported_warning,
)
from latentscale.errors import UserError
from latentscale.shards.verifying import verify

SIZE = (75, 51)


def jpeg(progressive: bool = False, grey: bool = False, **settings: object) -> bytes:
    """Smooth colours, so that most damage leaves a file that decodes."""
    image = noise(1, (9, 7)).resize(SIZE)
    buffer = io.BytesIO()
    image.convert("L" if grey else "RGB").save(buffer, "JPEG", progressive=progressive, **settings)
    return buffer.getvalue()


@pytest.fixture(params=[True, False], ids=["with simplejpeg", "without"])
def simplejpeg(request, monkeypatch) -> bool:
    if not request.param:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    return request.param


def extra_bytes(data: bytes) -> dict[str, bytes]:
    """The same picture with bytes that no code uses."""
    tables = data.index(b"\xff\xc4")
    scan = data.index(b"\xff\xda")
    return {
        "before the end": data[:-2] + b"\x12\x34\x56" * 5 + data[-2:],
        "many before the end": data[:-2] + bytes(2000) + data[-2:],
        "a few before the end": data[:-2] + b"\x12\x34" + data[-2:],
        "a few before the scan": data[:scan] + b"\x12\x34" + data[scan:],
        "between tables": data[:tables] + bytes(9) + data[tables:],
        "before the scan": data[:scan] + b"\x01" * 40 + data[scan:],
        "after the end": data + b"text" * 9,
        "FF before a marker": data[:scan] + b"\xff" * 3 + data[scan:],
    }


@pytest.mark.parametrize("where", extra_bytes(jpeg()))
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_extra_bytes_cost_no_pixel(tmp_path, where, progressive, simplejpeg):
    data = jpeg(progressive)
    fill(tmp_path / "in", {"a.jpg": extra_bytes(data)[where], "b.jpg": data})
    result = built("folder", tmp_path / "in", tmp_path / "kept")
    first, second = samples(tmp_path / "kept/train")
    assert second.image == data
    # without the extra bytes, or with so few that libjpeg-turbo does not warn of them
    anew = where not in ("after the end", "FF before a marker", "a few before the end", "a few before the scan")
    assert (first.image == extra_bytes(data)[where]) is not anew
    assert result.notes == ({"unused bytes of the JPEG left out: it may be damaged": 1} if anew else {})
    np.testing.assert_array_equal(*pixels(tmp_path / "kept/train"))
    assert not verify(tmp_path / "kept", 0).broken
    built("folder", tmp_path / "in", tmp_path / "new", resolution=16)
    first, second = samples(tmp_path / "new/train")
    assert (first.extension, first.image) == ("png", second.image)


def test_every_decoder_gives_the_pixels_of_a_file_with_extra_bytes():
    data = jpeg()
    for name in ("fast", "pillow"):
        whole, other = (np.empty((*SIZE[::-1], 3), np.uint8) for _ in range(2))
        Decoder(name).into(data, whole)
        Decoder(name).into(extra_bytes(data)["before the end"], other)
        np.testing.assert_array_equal(other, whole)


def lost_pixels() -> dict[str, bytes]:
    data = jpeg(quality=90)
    scan = data.index(b"\xff\xda") + 14
    middle = (scan + len(data)) // 2
    restarts = jpeg(restart_marker_blocks=3)
    return {
        "cut off and closed": data[:middle] + b"\xff\xd9",
        "no codes at all": data[:scan] + b"\xff\xd9",
        "a restart marker left out": restarts.replace(b"\xff\xd1", b"", 1),
        "cut off and closed, then extra bytes": data[:middle] + b"\xff\xd9" + data[middle:],
        "the last scan of a progressive file, cut off and closed": jpeg(True)[:-30] + b"\xff\xd9",
    }


@pytest.mark.parametrize("how", lost_pixels())
def test_lost_pixels_are_refused(tmp_path, how, simplejpeg):
    data = lost_pixels()[how]
    Image.open(io.BytesIO(data)).load()
    fill(tmp_path / "in", {"a.jpg": data, "b.jpg": jpeg()})
    with pytest.raises(UserError, match=r"a\.jpg is not a readable image \(.*--on-error skip") as refused:
        built("folder", tmp_path / "in", tmp_path / "out", resolution=16)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_extra_bytes_that_changed_codes_leave_are_mostly_refused(progressive):
    generator = np.random.default_rng(progressive)
    verdicts = []
    for number in range(60):
        buffer = io.BytesIO()
        noise(number, SIZE).save(buffer, "JPEG", progressive=progressive)
        data = buffer.getvalue()
        place = int(generator.integers(data.index(b"\xff\xda") + 14, len(data) - 2))
        damaged = data[:place] + generator.integers(0, 255, 25, dtype=np.uint8).tobytes() + data[place:]
        try:
            lost = not np.array_equal(*(np.asarray(Image.open(io.BytesIO(each))) for each in (data, damaged)))
        except OSError:
            continue
        warning = followed_warning(damaged)
        if lost and (warning == LOST_PLACE or is_harmless(warning)):
            verdicts.append(warning == LOST_PLACE)
    # by chance the codes may end where the rest of the byte is 1, as at the true end
    assert len(verdicts) > 15
    assert sum(verdicts) > len(verdicts) / 2


def test_codes_that_end_in_the_middle_of_others_are_refused(tmp_path, simplejpeg):
    data = jpeg()
    # an end that is not filled with 1, and extra bytes
    assert data[-3] & 1
    damaged = data[:-3] + bytes([data[-3] - 1]) + bytes(40) + data[-2:]
    fill(tmp_path / "in", {"a.jpg": damaged, "b.jpg": data})
    with pytest.raises(UserError, match=r"a\.jpg is not a readable image \(.*end in the middle.*--on-error skip"):
        built("folder", tmp_path / "in", tmp_path / "out", resolution=16)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"optimize": True, "quality": 30}, {"restart_marker_blocks": 2}], ids=str)
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_following_the_codes_tells_what_simplejpeg_tells(progressive, grey, subsampling, settings):
    pytest.importorskip("simplejpeg")
    data = jpeg(progressive, grey, subsampling=subsampling, **settings)
    assert (followed_warning(data), reported_warning(data)) == ("", "")
    generator = np.random.default_rng([progressive, grey, subsampling, len(settings)])
    scan, compared = data.index(b"\xff\xda") + 14, 0
    for number in range(40):
        damaged, place = bytearray(data), int(generator.integers(scan, len(data) - 2))
        if number % 3 == 0:
            damaged[place] ^= 1 << number % 8
        elif number % 3 == 1:
            del damaged[place : min(place + number, len(data) - 2)]
        else:
            damaged[place:place] = generator.integers(0, 255, number, dtype=np.uint8).tobytes()
        try:
            Image.open(io.BytesIO(damaged)).load()
        except OSError:  # Pillow decides about these
            continue
        reported, followed = reported_warning(bytes(damaged)), followed_warning(bytes(damaged))
        assert reported is not None
        # of several warnings simplejpeg tells the last, which may be the harmless one
        if reported == "" or not is_harmless(reported):
            assert (not followed or is_harmless(followed)) == (reported == "")
            compared += 1
    assert compared > 5


def test_the_warnings_have_libjpegs_words():
    data = jpeg(quality=90)
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    cut = data[:middle] + b"\xff\xd9"
    assert followed_warning(cut) == reported_warning(cut) == CUT_SEGMENT
    extra = data[:-2] + bytes(100) + data[-2:]
    for warning in (followed_warning(extra), reported_warning(extra)):
        assert is_harmless(warning)
    assert not is_harmless(BAD_CODE)
    assert not is_harmless(f"{BAD_CODE}, then 3 extraneous bytes before marker 0xd9")


def test_a_dataset_does_not_depend_on_simplejpeg(tmp_path, monkeypatch):
    files = {
        f"{n}.jpg": data for n, data in enumerate([*extra_bytes(jpeg()).values(), *lost_pixels().values(), jpeg()])
    }
    fill(tmp_path / "in", files)
    outs: list[Path] = []
    for present in (True, False):
        if not present:
            monkeypatch.setitem(sys.modules, "simplejpeg", None)
        outs.append(tmp_path / f"out{present}" / "data")
        built("folder", tmp_path / "in", outs[-1], on_error="skip", max_errors=9, name="x")
    first, second = map(contents, outs)
    left_out = b"left_out"
    assert left_out in first["train/dataset.json"]
    assert {name: data for name, data in first.items() if not name.endswith(".json")} == {
        name: data for name, data in second.items() if not name.endswith(".json")
    }
