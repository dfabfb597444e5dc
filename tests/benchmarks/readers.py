"""The readers in `bench_data`: the platform's loader, the limit, and other libraries in their usual form.

Time is the processor's: of all threads of this process, and of nobody else's programs.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import webdataset
from photographs import encode, photograph
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from latentscale.data.loader import Loader
from latentscale.data.order import Order
from latentscale.data.step_reader import StepReader
from latentscale.decoding.decoder import Decoder
from latentscale.shards.dataset_writer import Sample, write_shards
from latentscale.shards.sharded_dataset import ShardedDataset

STREAMS = 8
WINDOW_IMAGES = 8192
PREFETCH_STEPS = 4
SHARDS = 8


class Missing(Exception):
    """Why a reader cannot take part."""


class Contestant(Protocol):
    """Reads batches in its turns; nothing runs in between."""

    def take(self, batches: int) -> float:
        """CPU seconds of a number of batches."""


@dataclass
class Case:
    """The images to read.

    Attributes:
        turn_batches: read in a turn.
    """

    name: str
    meaning: str
    extension: str
    size: int
    count: int
    batch: int
    turn_batches: int


@dataclass
class Data:
    """The same images as shards, as a folder of files, and in memory."""

    shards: Path
    files: list[Path]
    contents: list[bytes]


def write_case(case: Case, folder: Path) -> Data:
    """Create a case's images and write them in all formats."""
    contents = [encode(photograph(number, case.size), case.extension) for number in range(case.count)]
    shards = folder / "shards"
    samples = (Sample(content, case.extension, number % 10) for number, content in enumerate(contents))
    shard_bytes = sum(map(len, contents)) // SHARDS
    labels = [str(label) for label in range(10)]
    write_shards(samples, shards, "photographs", (3, case.size, case.size), labels, "BSD-3-Clause", shard_bytes)
    files = []
    for number, content in enumerate(contents):
        path = folder / "files" / str(number % 10) / f"{number:06d}.{case.extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files.append(path)
    return Data(shards, files, contents)


def timed(batches: Iterator[tuple[Tensor, Any]], case: Case, count: int) -> float:
    """CPU seconds to read a number of batches of a case.

    Raises:
        RuntimeError: a batch is not what it must be, or one is missing.
    """
    began = time.process_time()
    taken = 0
    for images, labels in islice(batches, count):
        if images.shape != (case.batch, 3, case.size, case.size) or images.dtype != torch.uint8:
            raise RuntimeError(f"a batch of {tuple(images.shape)} {images.dtype}")
        if len(labels) != case.batch:
            raise RuntimeError("labels are missing")
        taken += 1
    seconds = time.process_time() - began
    if taken != count:
        raise RuntimeError(f"{taken} of {count} batches")
    return seconds


class PlatformLoader:
    """The platform's loader with one thread, used like a Feed does; a new one per turn, since it prefetches."""

    def __init__(self, case: Case, data: Data) -> None:
        dataset = ShardedDataset.open(data.shards)
        order = Order(dataset.shard_counts, STREAMS, 0, WINDOW_IMAGES)
        self._case = case
        self._reader = StepReader(dataset, order, range(STREAMS), case.batch // STREAMS, dataset.shape)
        self._step = 0

    def take(self, batches: int) -> float:
        began = time.process_time()
        start, self._step = self._step, self._step + batches
        loader = Loader(
            self._reader,
            workers=0,
            prefetch_steps=PREFETCH_STEPS,
            start_step=start,
            stop_step=self._step,
            finish=lambda steps, images, labels: [(images[0], labels[0])],
        )
        with loader:
            timed(loader, self._case, batches)
        return time.process_time() - began


class BareLoop:
    """Decodes bytes in memory with the loader's library.

    In the order in which the loader reads them: walking through memory from one end to the other is quicker.

    Args:
        keeps: holds the pictures of a batch until the next is whole, as whoever is to use a batch must. Without it
            the allocator gives every picture the memory of the one before, when it happens to, and that stays in the
            processor's caches: quicker or not by the luck of the process's start.
    """

    def __init__(self, case: Case, data: Data, keeps: bool = True) -> None:
        import imagecodecs
        import simplejpeg

        decoder = Decoder("fast")
        assert (decoder.jpeg, decoder.png) == ("simplejpeg", "imagecodecs")
        self._decode = simplejpeg.decode_jpeg if case.extension == "jpg" else imagecodecs.png_decode
        dataset = ShardedDataset.open(data.shards)
        self._firsts = np.cumsum(dataset.shard_counts) - dataset.shard_counts
        self._order = Order(dataset.shard_counts, STREAMS, 0, WINDOW_IMAGES)
        self._contents, self._batch, self._step = data.contents, case.batch, 0
        self._keeps = keeps

    def take(self, batches: int) -> float:
        decode, steps = self._decode, range(self._step, self._step + batches)
        self._step += batches
        shards, members = self._order.locate_steps(range(STREAMS), steps, self._batch // STREAMS)
        chosen = [self._contents[sample] for sample in (self._firsts[shards] + members).ravel().tolist()]
        began = time.process_time()
        if self._keeps:
            for start in range(0, len(chosen), self._batch):
                batch = [decode(content) for content in chosen[start : start + self._batch]]
        else:
            for content in chosen:
                decode(content)
        seconds = time.process_time() - began
        if self._keeps and len(batch) != self._batch:
            raise RuntimeError(f"a batch of {len(batch)}")
        return seconds


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """A folder of images with one subfolder per label, in the usual form: Pillow, then ``[3, H, W]``."""

    def __init__(self, files: list[Path], channels_last: bool) -> None:
        self._files, self._channels_last = files, channels_last

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        path = self._files[number]
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        return pixels if self._channels_last else pixels.permute(2, 0, 1), int(path.parent.name)


class TorchLoader:
    """torch's DataLoader over a folder of images, in its own thread.

    Args:
        channels_last: collate images as they are decoded and only then turn the axes, which saves a transposition.
    """

    def __init__(self, case: Case, data: Data, channels_last: bool = False) -> None:
        self._case = case
        self._channels_last = channels_last
        loader = DataLoader(ImageFolder(data.files, channels_last), case.batch, shuffle=True, drop_last=True)
        self._batches = self._endless(loader)

    def _endless(self, loader: "DataLoader[tuple[Tensor, int]]") -> Iterator[tuple[Tensor, Any]]:
        while True:
            for images, labels in loader:
                yield images.permute(0, 3, 1, 2) if self._channels_last else images, labels

    def take(self, batches: int) -> float:
        return timed(self._batches, self._case, batches)


class WebDatasetLoader:
    """webdataset's own pipeline over the same shards: shuffled, decoded by Pillow, batched."""

    def __init__(self, case: Case, data: Data) -> None:
        urls = [str(path) for path in sorted(data.shards.glob("*.tar"))]
        pipeline = (
            webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0)
            .repeat()
            .shuffle(1000, rng=random.Random(0))
            .decode("rgb8")
            .to_tuple(case.extension, "cls")
            .batched(case.batch)
        )
        self._case = case
        self._batches = ((torch.from_numpy(images).permute(0, 3, 1, 2), labels) for images, labels in pipeline)

    def take(self, batches: int) -> float:
        return timed(self._batches, self._case, batches)


class MosaicLoader:
    """mosaicml-streaming over shards in its own format."""

    def __init__(self, case: Case, data: Data) -> None:
        try:
            from streaming import MDSWriter, StreamingDataset
        except Exception as error:  # it imports torchvision and transformers, which may fail with any error
            raise Missing(f"cannot be imported ({str(error).splitlines()[0]})") from error
        folder = data.shards.parent / "mosaic"
        columns = {"image": "jpeg" if case.extension == "jpg" else "png", "label": "int"}
        with MDSWriter(out=str(folder), columns=columns) as writer:
            for path in data.files:
                with Image.open(path) as image:
                    image.load()
                    writer.write({"image": image, "label": int(path.parent.name)})
        dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=case.batch)
        self._case = case

        def collate(samples: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
            pixels = torch.from_numpy(np.stack([np.asarray(sample["image"].convert("RGB")) for sample in samples]))
            return pixels.permute(0, 3, 1, 2), torch.tensor([sample["label"] for sample in samples])

        def endless() -> Iterator[tuple[Tensor, Any]]:
            while True:
                yield from DataLoader(dataset, case.batch, collate_fn=collate, drop_last=True)

        self._batches = endless()

    def take(self, batches: int) -> float:
        return timed(self._batches, self._case, batches)


CONTESTANTS: dict[str, Callable[[Case, Data], Contestant]] = {
    "latentscale": PlatformLoader,
    "bare loop": BareLoop,
    "bare loop, each picture dropped": lambda case, data: BareLoop(case, data, keeps=False),
    "DataLoader": TorchLoader,
    "latentscale again": PlatformLoader,
    "webdataset": WebDatasetLoader,
    "DataLoader, collated with C last": lambda case, data: TorchLoader(case, data, channels_last=True),
    "mosaicml-streaming": MosaicLoader,
}
