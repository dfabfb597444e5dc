"""From the bytes of an image file to uint8 pixels, by the fastest libraries that are installed.

JPEG by simplejpeg and PNG by imagecodecs, straight into the batch; whatever else a file may be by Pillow. Which is
fastest is measured by tests/benchmarks/decoders.py; both come as wheels for Linux, macOS and Windows. All obey the same
rules (`pillow_decoding`), which a file must meet by its header before the fast libraries see it. simplejpeg refuses
damage that Pillow draws over, so which of them decodes JPEG is part of what a run is.
"""

import base64
import hashlib
import importlib
import struct
from collections.abc import Collection
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.decoding.pillow_decoder import UPRIGHT, decode_with_pillow, exif_orientation, refuse_size, unreadable
from latentscale.errors import UserError

DECODERS = ("auto", "fast", "pillow")
JPEG_EXTENSIONS = frozenset(("jpg", "jpeg", "jpe", "jfif"))

_JPEG_SEARCHED_BYTES = 2048
_JPEG_START = b"\xff\xd8\xff"
_JFIF_START = b"\xff\xe0\x00\x10"
_JPEG_TABLES = b"\xff\xdb"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPE = {1: 0, 3: 2}
# what changes the pixels of a PNG, or which of them are shown, beside its header and data
_PNG_SPECIAL = frozenset((b"tRNS", b"eXIf", b"acTL"))
_JPEG_SPACES = {1: ("Gray",), 3: ("YCbCr", "RGB")}
_JPEG_OUTPUT = {1: "GRAY", 3: "RGB"}


class Decoder:
    """Decodes image files; equal on every process that resolves the same name to the same libraries. Picklable.

    Args:
        name: ``auto``: what is installed of the fast libraries; ``fast``: both, or refuse; ``pillow``: Pillow alone.

    Attributes:
        name: as given.
        jpeg, png: the library of each format.

    Raises:
        UserError: an unknown name, or ``fast`` where a library is missing.
    """

    def __init__(self, name: str = "auto") -> None:
        if name not in DECODERS:
            raise UserError(f"data.decoder={name} does not exist: use one of {', '.join(DECODERS)}")
        self.name = name
        self._simplejpeg = _library(name, "simplejpeg")
        self._imagecodecs = _library(name, "imagecodecs")
        self.jpeg = "simplejpeg" if self._simplejpeg else "Pillow"
        self.png = "imagecodecs" if self._imagecodecs else "Pillow"

    def __reduce__(self) -> tuple[Any, ...]:
        return Decoder, (self.name,)

    def describe(self) -> str:
        """Which libraries decode, in words."""
        return f"{self.jpeg} for JPEG, {self.png} for PNG, Pillow for the rest"

    def identity(self, extensions: Collection[str]) -> dict[str, str]:
        """What of the decoder a run may not change: for files that are JPEG the library, and a checksum of pixels.

        A JPEG's pixels are rounded as its decoder likes, and may differ by a count between libraries and their
        versions; lossless files leave no choice.
        """
        if not JPEG_EXTENSIONS.intersection(extensions):
            return {}
        return {"data.decoder for JPEG": f"{self.jpeg} (its pixels: {_probe(self)})"}

    def into(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode one image file.

        Grey becomes RGB by repetition and RGB becomes grey by ITU-R 601 luma where ``out`` asks for it; palette,
        bilevel, CMYK and YCbCr images are converted; an opaque alpha channel is dropped; what EXIF says is not upright
        is turned.

        Args:
            data: the file's bytes.
            out: uint8 ``[H, W, C]`` of the wanted size, C one of 1 and 3; is written to.

        Raises:
            ImageRefused: an unreadable file, another size, translucent pixels, or pixels of more than 8 bits.
        """
        shape = out.shape
        if data[:3] == _JPEG_START:
            done = self._simplejpeg is not None and self._jpeg_into(data, out, shape)
        else:
            done = self._imagecodecs is not None and data[:26] == _png_start(shape) and self._png_into(data, out)
        if not done:
            decode_with_pillow(data, out)

    def _jpeg_into(self, data: bytes, out: NDArray[np.uint8], shape: tuple[int, int, int]) -> bool:
        # most have JFIF's segment of 16 bytes and no other before their tables: nothing that could turn them
        if (data[2:6] != _JFIF_START or data[20:22] != _JPEG_TABLES) and _jpeg_orientation(data) != UPRIGHT:
            return False
        height, width, channels = shape
        # most say so near their beginning, and in one way; asking the library takes ten times as long
        if data.find(_jpeg_frame(shape), 0, _JPEG_SEARCHED_BYTES) < 0:
            try:
                found_height, found_width, space, _ = self._simplejpeg.decode_jpeg_header(data)
            except ValueError:  # unusual sampling, or damage
                return False
            refuse_size((found_height, found_width), (height, width))
            if space not in _JPEG_SPACES[channels]:
                return False
        try:
            target = out if out.flags.c_contiguous else None
            pixels = self._simplejpeg.decode_jpeg(data, _JPEG_OUTPUT[channels], buffer=target)
        except ValueError as error:
            raise unreadable(error) from error
        if pixels.shape != shape:
            refuse_size(pixels.shape[:2], (height, width))
        if target is None:
            out[:] = pixels
        return True

    def _png_into(self, data: bytes, out: NDArray[np.uint8]) -> bool:
        # most are of one chunk of data
        simple = data[37:41] == b"IDAT" and int.from_bytes(data[33:37]) + 57 == len(data) and data[-8:-4] == b"IEND"
        if not simple and _png_is_special(data):
            return False
        try:
            if out.flags.c_contiguous:
                # without the axis of a single channel: with it, imagecodecs 2026.3 frees memory that is not its own
                # where a file turns out to be damaged, and the process ends later
                self._imagecodecs.png_decode(data, out=out[..., 0] if out.shape[2] == 1 else out)
            else:
                out[:] = self._imagecodecs.png_decode(data).reshape(out.shape)
        except (self._imagecodecs.PngError, ValueError) as error:
            raise unreadable(error) from error
        return True


@cache
def default_decoder() -> Decoder:
    """``auto``, for those who decode a few images."""
    return Decoder()


def _library(name: str, module: str) -> Any:
    if name == "pillow":
        return None
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if name == "fast":
            raise UserError(
                f"data.decoder=fast needs {module}, which cannot be imported ({error}): pip install {module}, or set"
                " data.decoder=auto"
            ) from error
        return None


def _jpeg_orientation(data: bytes) -> int:
    """By the EXIF segment, which stands among the application segments at the beginning."""
    start = 2
    while len(data) > start + 4 and data[start] == 0xFF and 0xE0 <= data[start + 1] <= 0xEF:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if data.startswith(b"Exif\0\0", start + 4):
            return exif_orientation(data[start + 4 : end])
        start = end
    return UPRIGHT


@lru_cache(8)
def _jpeg_frame(shape: tuple[int, int, int]) -> bytes:
    """The baseline frame header of a JPEG of this ``(H, W, C)`` and 8 bits, up to the number of its components."""
    height, width, channels = shape
    return struct.pack(">BBHBHHB", 0xFF, 0xC0, 8 + 3 * channels, 8, height, width, channels)


@lru_cache(8)
def _png_start(shape: tuple[int, int, int]) -> bytes:
    """How a PNG of this ``(H, W, C)`` and 8 bits begins, up to what says how it is stored."""
    height, width, channels = shape
    return struct.pack(">8sI4sIIBB", _PNG_START, 13, b"IHDR", width, height, 8, _PNG_COLOUR_TYPE[channels])


def _png_is_special(data: bytes) -> bool:
    """Whether a PNG has chunks by which its pixels are not simply those of its data, or is not whole."""
    start = len(_PNG_START)
    while (kind := data[start + 4 : start + 8]) != b"IEND":
        if kind in _PNG_SPECIAL or len(kind) < 4:
            return True
        start += 12 + int.from_bytes(data[start : start + 4])
    return False


def _probe(decoder: Decoder) -> str:
    """A checksum of what a small JPEG file with halved chroma decodes to."""
    pixels = np.empty((21, 27, 3), dtype=np.uint8)
    decoder.into(base64.b64decode(_PROBE), pixels)
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:12]


# waves of three colours, 21x27 pixels, 4:2:0, so that edges of blocks are cut and chroma is interpolated
_PROBE = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsjHBYWICwgIyYnKSopGR8tMC0oMCUoKS
j/2wBDAQcHBwoIChMKChMoGhYaKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCj/wAARCAAVABsDASIAAhEBAxEB
/8QAFwAAAwEAAAAAAAAAAAAAAAAAAAUGB//EACMQAAEDBAIBBQAAAAAAAAAAAAECAwQABQYSESFBBxMiMXL/xAAXAQADAQAAAAAAAAAAAAAAAAAABQYH/8
QAIxEAAQMEAQQDAAAAAAAAAAAAAQIDBAAFBhExEiJBYRQhJP/aAAwDAQACEQMRAD8A1NiTa7NH4TpsBUFnWZIeZW2yevrqo62zLlfEbjfU0xRiciWoBYJJ
pxDtzMWA8uQrZANOnItoxaMiZctLdVwPdT1ihoushan0lQNP0YnadRtEBP5rRcQxS22WGuRcloSEjnupy4+pOKxJzzA0IbVxzUBd7g9JtMVMRKiAVcUtVk
d9uKy5FQ3Hb8dQ+zVvjGOQbdjLbrSApWvkUuXNMdt5xDaeU88UUVSwVKet8kuHfNTT4+fksNqV3p0Do8Vg2c5tdrndnLf7pZYJ1+JpVHwqC8ylx11xS1dk
nzRRRePx49AEft31cVrePw2JUySX0BXSQBvwPVf/2Q==
"""
