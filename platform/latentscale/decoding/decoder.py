"""Decoding image files to uint8 pixels with the fastest installed libraries.

simplejpeg decodes JPEG and imagecodecs decodes PNG, both directly into the batch; Pillow decodes everything else.
tests/benchmarks/decoders.py measures which is fastest. Both come as wheels for Linux, macOS and Windows. All follow the
same rules (`pillow_decoder`), which are checked on a file's header before a fast library decodes it. simplejpeg refuses
some damaged files that Pillow accepts, so the JPEG library is part of a run's identity. Files whose only fault are
bytes that no code uses are decoded by both.
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

from latentscale.decoding.jpeg_warnings import is_harmless
from latentscale.decoding.pillow_decoder import UPRIGHT, decode_with_pillow, exif_orientation, refuse_size, unreadable
from latentscale.errors import UserError
from latentscale.wording import shown

DECODERS = ("auto", "fast", "pillow")
JPEG_EXTENSIONS = frozenset(("jpg", "jpeg", "jpe", "jfif"))

_JPEG_SEARCHED_BYTES = 2048
_JPEG_START = b"\xff\xd8\xff"
_JFIF_START = b"\xff\xe0\x00\x10"
_JPEG_TABLES = b"\xff\xdb"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPE = {1: 0, 3: 2}
# chunks that change the pixels of a PNG, or which of its frames is shown
_PNG_SPECIAL = frozenset((b"tRNS", b"eXIf", b"acTL"))
_JPEG_SPACES = {1: ("Gray",), 3: ("YCbCr", "RGB")}
_JPEG_OUTPUT = {1: "GRAY", 3: "RGB"}


class Decoder:
    """Decodes image files; results are equal on all processes with the same libraries. Can be pickled.

    Args:
        name: ``auto`` uses the fast libraries that are installed; ``fast`` requires both; ``pillow`` uses Pillow alone.

    Attributes:
        name: the given name.
        jpeg, png: the library that decodes each format.

    Raises:
        UserError: the name is unknown, or ``fast`` was given and a library is missing.
    """

    def __init__(self, name: str = "auto") -> None:
        if name not in DECODERS:
            raise UserError(f"data.decoder={shown(name)} does not exist: use one of {', '.join(DECODERS)}")
        self.name = name
        self._simplejpeg = _library(name, "simplejpeg")
        self._imagecodecs = _library(name, "imagecodecs")
        self.jpeg = "simplejpeg" if self._simplejpeg else "Pillow"
        self.png = "imagecodecs" if self._imagecodecs else "Pillow"

    def __reduce__(self) -> tuple[Any, ...]:
        return Decoder, (self.name,)

    def describe(self) -> str:
        """Return which library decodes which format, as text."""
        return f"{self.jpeg} for JPEG, {self.png} for PNG, Pillow for the rest"

    def identity(self, extensions: Collection[str]) -> dict[str, str]:
        """Return the properties of the decoder that must not change within a run.

        For JPEG files these are the library and a checksum of decoded pixels: rounding differs between libraries and
        between their versions, by one count. Lossless formats have no such properties.
        """
        if not JPEG_EXTENSIONS.intersection(extensions):
            return {}
        return {"data.decoder for JPEG": f"{self.jpeg} (its pixels: {_probe(self)})"}

    def into(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode one image file.

        To match the channels of ``out``, grey is repeated to RGB, and RGB is converted to grey by ITU-R 601 luma.
        Palette, bilevel, CMYK and YCbCr images are converted. An opaque alpha channel is dropped. The EXIF orientation
        is applied.

        Args:
            data: the file's bytes.
            out: uint8 ``[H, W, C]`` of the expected size, C is 1 or 3; receives the pixels.

        Raises:
            ImageRefused: the file is unreadable, has another size, translucent pixels, or more than 8 bits per channel.
        """
        shape = out.shape
        if data[:3] == _JPEG_START:
            done = self._simplejpeg is not None and self._jpeg_into(data, out, shape)
        else:
            done = self._imagecodecs is not None and data[:26] == _png_start(shape) and self._png_into(data, out)
        if not done:
            decode_with_pillow(data, out)

    def _jpeg_into(self, data: bytes, out: NDArray[np.uint8], shape: tuple[int, int, int]) -> bool:
        # most files have only a 16-byte JFIF segment before their tables, hence no EXIF orientation
        if (data[2:6] != _JFIF_START or data[20:22] != _JPEG_TABLES) and _jpeg_orientation(data) != UPRIGHT:
            return False
        height, width, channels = shape
        # most files have exactly this frame header near the beginning; reading it with the library is ten times as slow
        if data.find(_jpeg_frame(shape), 0, _JPEG_SEARCHED_BYTES) < 0:
            try:
                found_height, found_width, space, _ = self._simplejpeg.decode_jpeg_header(data)
            except ValueError:  # unusual sampling, or damage
                return False
            refuse_size((found_height, found_width), (height, width))
            if space not in _JPEG_SPACES[channels]:
                return False
        target = out if out.flags.c_contiguous else None
        try:
            pixels = self._simplejpeg.decode_jpeg(data, _JPEG_OUTPUT[channels], buffer=target)
        except ValueError as error:
            if is_harmless(" ".join(str(error).split())):  # Pillow decodes it all the same
                return False
            raise unreadable(error) from error
        if pixels.shape != shape:
            refuse_size(pixels.shape[:2], (height, width))
        if target is None:
            out[:] = pixels
        return True

    def _png_into(self, data: bytes, out: NDArray[np.uint8]) -> bool:
        # most files have a single data chunk
        simple = data[37:41] == b"IDAT" and int.from_bytes(data[33:37]) + 57 == len(data) and data[-8:-4] == b"IEND"
        if not simple and _png_is_special(data):
            return False
        try:
            if out.flags.c_contiguous:
                # a single channel is passed without its axis: otherwise imagecodecs 2026.3, on a damaged file, frees
                # memory that it does not own, and the process crashes later
                self._imagecodecs.png_decode(data, out=out[..., 0] if out.shape[2] == 1 else out)
            else:
                out[:] = self._imagecodecs.png_decode(data).reshape(out.shape)
        except (self._imagecodecs.PngError, ValueError) as error:
            raise unreadable(error) from error
        return True


@cache
def default_decoder() -> Decoder:
    """Return the shared decoder ``auto``, for decoding a few images."""
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
    """Return the EXIF orientation, read from the application segments at the beginning of the file."""
    start = 2
    while len(data) > start + 4 and data[start] == 0xFF and 0xE0 <= data[start + 1] <= 0xEF:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if data.startswith(b"Exif\0\0", start + 4):
            return exif_orientation(data[start + 4 : end])
        start = end
    return UPRIGHT


@lru_cache(8)
def _jpeg_frame(shape: tuple[int, int, int]) -> bytes:
    """Return the baseline frame header of an 8-bit JPEG of shape ``(H, W, C)``, up to its number of components."""
    height, width, channels = shape
    return struct.pack(">BBHBHHB", 0xFF, 0xC0, 8 + 3 * channels, 8, height, width, channels)


@lru_cache(8)
def _png_start(shape: tuple[int, int, int]) -> bytes:
    """Return the beginning of an 8-bit PNG of shape ``(H, W, C)``, up to its colour type."""
    height, width, channels = shape
    return struct.pack(">8sI4sIIBB", _PNG_START, 13, b"IHDR", width, height, 8, _PNG_COLOUR_TYPE[channels])


def _png_is_special(data: bytes) -> bool:
    """Return whether a PNG is truncated or has chunks that change its pixels."""
    start = len(_PNG_START)
    while (kind := data[start + 4 : start + 8]) != b"IEND":
        if kind in _PNG_SPECIAL or len(kind) < 4:
            return True
        start += 12 + int.from_bytes(data[start : start + 4])
    return False


def _probe(decoder: Decoder) -> str:
    """Return a checksum of the decoded pixels of a small 4:2:0 JPEG."""
    pixels = np.empty((21, 27, 3), dtype=np.uint8)
    decoder.into(base64.b64decode(_PROBE), pixels)
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:12]


# waves of three colours, 21x27 pixels, 4:2:0: the size cuts blocks at the edges, and chroma is interpolated
_PROBE = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsjHBYWICwgIyYnKSopGR8tMC0oMCUoKS
j/2wBDAQcHBwoIChMKChMoGhYaKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCj/wAARCAAVABsDASIAAhEBAxEB
/8QAFwAAAwEAAAAAAAAAAAAAAAAAAAUGB//EACMQAAEDBAIBBQAAAAAAAAAAAAECAwQABQYSESFBBxMiMXL/xAAXAQADAQAAAAAAAAAAAAAAAAAABQYH/8
QAIxEAAQMEAQQDAAAAAAAAAAAAAQIDBAAFBhExEiJBYRQhJP/aAAwDAQACEQMRAD8A1NiTa7NH4TpsBUFnWZIeZW2yevrqo62zLlfEbjfU0xRiciWoBYJJ
pxDtzMWA8uQrZANOnItoxaMiZctLdVwPdT1ihoushan0lQNP0YnadRtEBP5rRcQxS22WGuRcloSEjnupy4+pOKxJzzA0IbVxzUBd7g9JtMVMRKiAVcUtVk
d9uKy5FQ3Hb8dQ+zVvjGOQbdjLbrSApWvkUuXNMdt5xDaeU88UUVSwVKet8kuHfNTT4+fksNqV3p0Do8Vg2c5tdrndnLf7pZYJ1+JpVHwqC8ylx11xS1dk
nzRRRePx49AEft31cVrePw2JUySX0BXSQBvwPVf/2Q==
"""
