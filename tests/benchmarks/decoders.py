"""Compares the speed and pixels of image decoders on one core: ``make bench-data``.

JPEG and PNG of 64² and 256², interleaved round by round. Libraries that are not installed are left out by name.
"""

import argparse
import importlib
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from one_core import about_this_machine, stay_on_one_core
from photographs import encode, photograph
from PIL import Image
from turns import ratio, time_rounds

HERE = Path(__file__).resolve().parent
IMAGES = {64: 256, 256: 48}

Decode = Callable[[bytes], NDArray[np.uint8]]


def with_pillow(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def libraries(extension: str) -> tuple[dict[str, Decode], list[str]]:
    """Decoders by name, Pillow first, and the names of those that are not installed."""
    found: dict[str, Decode] = {"Pillow": with_pillow}
    absent = []

    def add(name: str, module: str, make: Callable[[object], Decode]) -> None:
        try:
            found[name] = make(importlib.import_module(module))
        except ImportError:
            absent.append(name)

    def opencv(cv2: object) -> Decode:
        cv2.setNumThreads(1)
        return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)

    add("OpenCV", "cv2", opencv)
    if extension == "jpg":
        add("simplejpeg", "simplejpeg", lambda module: module.decode_jpeg)
        add("imagecodecs (jpeg8)", "imagecodecs", lambda module: module.jpeg8_decode)
    else:
        add("imagecodecs (png)", "imagecodecs", lambda module: module.png_decode)
        add("imagecodecs (spng)", "imagecodecs", lambda module: module.spng_decode)
    return found, absent


class Timed:
    """Decodes the same files repeatedly, in its turns."""

    def __init__(self, decode: Decode, files: list[bytes]) -> None:
        self._decode, self._files = decode, files

    def take(self, rounds: int) -> float:
        began = time.process_time()
        for _ in range(rounds):
            for data in self._files:
                self._decode(data)
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure image decoders on one core.")
    parser.add_argument("--rounds", type=int, default=9, help="paired rounds")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of decoders.txt and decoders.json")
    options = parser.parse_args()
    stay_on_one_core()
    about = about_this_machine(options.rounds)
    lines: list[str] = []
    record: dict[str, object] = {"machine": about, "decoders": []}

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say("Decoding on one core: images/s, times Pillow's by paired rounds (lowest-highest), largest difference")
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    for extension in ("jpg", "png"):
        for size, count in IMAGES.items():
            files = [encode(photograph(number, size), extension) for number in range(count)]
            decoders, absent = libraries(extension)
            expected = [with_pillow(data).astype(np.int16) for data in files]
            seconds = time_rounds({name: Timed(decode, files) for name, decode in decoders.items()}, options.rounds, 1)
            say(f"\n{size}x{size} {extension}, {statistics.mean(map(len, files)):,.0f} bytes on average")
            for name, decode in decoders.items():
                faster = ratio(seconds, "Pillow", name)
                speed = count / statistics.median(seconds[name])
                pairs = zip(files, expected, strict=True)
                off = max(int(np.abs(decode(data) - pixels).max()) for data, pixels in pairs)
                say(f"  {name:<20} {speed:>8,.0f}   {faster}   pixels differ by {off}")
                record["decoders"].append(
                    {"format": extension, "size": size, "library": name, "images_per_second": speed,
                     "times_pillow": faster.median, "largest_difference": off}
                )  # fmt: skip
            for name in absent:
                say(f"  {name:<20} not installed")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "decoders.txt").write_text("\n".join(lines) + "\n")
    (options.out / "decoders.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
