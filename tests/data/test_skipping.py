"""Samples that cannot be read are replaced by a pure function of where they stood; flips are one too."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_images import LABELS, SHAPE, numbered_png, numbered_samples, numbers
from PIL import Image, PngImagePlugin
from torch import Tensor

from latentscale.data.loader import Loader
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.order import Order
from latentscale.data.step_reader import Preprocessing, StepReader
from latentscale.data.unreadable_samples import ReplacementSampler, Skipped
from latentscale.decoding.decoder import Decoder
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import Sample, write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions

COUNT, STREAMS, BATCH, STEPS = 30, 4, 3, 12
BROKEN = (4, 17, 29)
KINDS = [StepReader, MemoryCachedReader]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    """Thirty numbered images in shards of seven; three of them are no images."""
    out = tmp_path_factory.mktemp("damaged") / "data"
    samples = list(numbered_samples(COUNT))
    for number in BROKEN:
        samples[number] = Sample(b"no image", "png", number % 3)
    write_shards(samples, out, "damaged", SHAPE, LABELS, "CC0", shard_bytes=7 * 2048)
    return ShardedDataset.open(out)


def reader(
    dataset: ShardedDataset, kind: type[StepReader] = StepReader, owned: range = range(STREAMS), **preprocessing: bool
) -> StepReader:
    order = Order(dataset.shard_counts, STREAMS, seed=11, window=7)
    return kind(dataset, order, owned, BATCH, SHAPE, preprocessing=Preprocessing(Decoder(), 11, **preprocessing))


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_a_flipped_byte_ends_the_run_by_its_member_or_is_skipped(tmp_path: Path, extension: str) -> None:
    files = []
    for number in range(COUNT):
        file = io.BytesIO()
        Image.new("RGB", SHAPE[:0:-1], (8 * number, 90, 30)).save(file, {"jpg": "jpeg"}.get(extension, extension))
        files.append(file.getvalue())
    out = tmp_path / "data"
    samples = [Sample(file, extension, number % 3) for number, file in enumerate(files)]
    write_shards(samples, out, "flipped", SHAPE, LABELS, "CC0")
    tar = out / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    # in the entropy-coded data: libjpeg decodes it to other pixels, and says nothing
    content[content.index(files[9]) + len(files[9]) - (4 if extension == "jpg" else 20)] ^= 1
    tar.write_bytes(content)
    dataset = ShardedDataset.open(out)
    order = Order(dataset.shard_counts, STREAMS, seed=11, window=7)

    def steps(skip: bool) -> list[Skipped]:
        preprocessing = Preprocessing(Decoder(), 11, skip_errors=skip)
        block = StepReader(dataset, order, range(STREAMS), BATCH, SHAPE, preprocessing=preprocessing).block(
            range(STEPS)
        )
        return [each for skipped in block.skipped.values() for each in skipped]

    with pytest.raises(UserError, match=r"shard-000000\.tar member 9 is damaged \(its CRC-32"):
        steps(skip=False)
    found = steps(skip=True)
    assert found
    assert {(each.shard, each.member) for each in found} == {(0, 9)}


Batches = list[tuple[list[int], list[int], list[Skipped]]]


def read(dataset: ShardedDataset, kind: type[StepReader], workers: int, start: int = 0, block: int = 1) -> Batches:
    """Numbers, labels and what was skipped of each step."""
    loader: Loader[tuple[list[int], list[int]]] = Loader(
        reader(dataset, kind, skip_errors=True),
        workers=workers,
        prefetch_steps=2,
        start_step=start,
        stop_step=STEPS,
        finish=lambda steps, images, labels: [
            (numbers(image), label.tolist()) for image, label in zip(images, labels, strict=True)
        ],
        block_steps=block,
    )
    found = []
    with loader:
        for images, labels in loader:
            found.append((images, labels, list(loader.skipped)))
            loader.skipped.clear()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("workers", "block"), [(0, 1), (0, 5), (0, 20), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_what_stands_in_depends_on_the_position_alone(
    damaged: ShardedDataset, kind: type[StepReader], workers: int, block: int
) -> None:
    expected = read(damaged, StepReader, 0)
    assert read(damaged, kind, workers, block=block) == expected
    assert read(damaged, kind, workers, start=5, block=block) == expected[5:]


def test_a_substitute_is_a_whole_sample_with_its_own_label(damaged: ShardedDataset) -> None:
    order = Order(damaged.shard_counts, STREAMS, seed=11, window=7)
    met = set()
    for step, (images, labels, skipped) in enumerate(read(damaged, StepReader, 0)):
        wanted = [
            7 * shard + member
            for stream in range(STREAMS)
            for shard, member in [order.locate(stream, step * BATCH + i) for i in range(BATCH)]
        ]
        assert [number for number, want in zip(images, wanted, strict=True) if want not in BROKEN] == [
            want for want in wanted if want not in BROKEN
        ]
        assert not set(images) & set(BROKEN)
        assert labels == [number % 3 for number in images]
        told = {7 * sample.shard + sample.member for sample in skipped}
        assert {want for want in wanted if want in BROKEN} <= told <= set(BROKEN)
        met |= told
        for sample in skipped:
            assert f"shard-{sample.shard:06d}.tar member {sample.member} is not a readable image" in sample.reason
    assert met == set(BROKEN)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_together_read_what_one_process_reads(damaged: ShardedDataset, kind: type[StepReader]) -> None:
    whole = reader(damaged, skip_errors=True, horizontal_flip=True)
    halves = [reader(damaged, kind, owned, skip_errors=True, horizontal_flip=True) for owned in (range(2), range(2, 4))]
    for step in range(STEPS):
        images, labels, skipped = whole.block(range(step, step + 1))
        parts = [half.block(range(step, step + 1)) for half in halves]
        assert torch.equal(torch.cat([part.images for part in parts], 1), images)
        assert torch.equal(torch.cat([part.labels for part in parts], 1), labels)
        assert [sample for part in parts for sample in part.skipped.get(step, [])] == skipped.get(step, [])


def test_a_substitute_that_is_broken_too_is_replaced_in_its_turn() -> None:
    tried = []

    def only_the_last(shard: int, member: int) -> tuple[int, int]:
        from latentscale.data.unreadable_samples import UnreadableSample

        tried.append((shard, member))
        if (shard, member) != (2, 1):
            raise UnreadableSample(f"({shard}, {member})")
        return shard, member

    substitution = ReplacementSampler(np.array([3, 1, 2]), seed=5)
    skipped: list[Skipped] = []
    assert substitution.read(0, 0, 1, 40, only_the_last, skipped) == (2, 1)
    candidates = [(0, 0)] + [substitution.candidate(1, 40, attempt) for attempt in range(1, len(skipped) + 1)]
    assert [(sample.shard, sample.member) for sample in skipped] == candidates[:-1]
    assert len(tried) == len(set(tried))  # what was found broken is not tried again
    drawn = [substitution.candidate(0, position, 1) for position in range(6000)]
    for place in ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)):
        assert drawn.count(place) == pytest.approx(1000, abs=5 * 1000**0.5)


def test_where_nothing_is_readable_it_ends(tmp_path: Path) -> None:
    write_shards([Sample(b"no", "png", 0)] * 3, tmp_path / "data", "broken", SHAPE, LABELS, "CC0")
    dataset = ShardedDataset.open(tmp_path / "data")
    order = Order(dataset.shard_counts, 1, seed=0, window=1)
    for kind in KINDS:
        nothing = kind(dataset, order, range(1), 2, SHAPE, preprocessing=Preprocessing(skip_errors=True))
        with pytest.raises(UserError, match=r"64 samples drawn .*shard-000000\.tar member . is not a readable image"):
            nothing(0)


def test_of_a_truncated_shard_a_missing_index_and_a_pipe_the_other_samples_are_read(tmp_path: Path) -> None:
    write_shards(numbered_samples(COUNT), tmp_path / "data", "cut", SHAPE, LABELS, "CC0", shard_bytes=7 * 2048)
    tar = tmp_path / "data" / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[: 4 * 2048])
    (tmp_path / "data" / "shard-000003.index.safetensors").unlink()
    (tmp_path / "data" / "shard-000004.tar").unlink()
    os.mkfifo(tmp_path / "data" / "shard-000004.tar")
    with pytest.raises(UserError, match=r"shard-000001\.tar has 8192 bytes instead of"):
        ShardedDataset.open(tmp_path / "data")
    dataset = ShardedDataset.open(tmp_path / "data", StorageOptions(tmp_path, skip_damaged=True))
    batches = read(dataset, StepReader, 0)
    readable = {number for number in range(COUNT) if number not in (*range(11, 14), *range(21, COUNT))}
    assert {number for images, _, _ in batches for number in images} == readable
    reasons = {sample.reason for _, _, skipped in batches for sample in skipped}
    assert any("shard-000001.tar member 4 is cut off after" in reason for reason in reasons)
    assert any("shard-000003.index.safetensors cannot be read" in reason for reason in reasons)
    assert any(
        "shard-000004.tar member 0 cannot be read (it is a device, a pipe or a socket" in reason for reason in reasons
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_second_image_is_mirrored_and_each_position_keeps_its_side(
    numbered: Callable[[int, int], ShardedDataset], kind: type[StepReader]
) -> None:
    dataset = numbered(30, 7)
    plain, flipping = reader(dataset), reader(dataset, kind, horizontal_flip=True)
    mirrored, again = 0, reader(dataset, kind, horizontal_flip=True)
    for step in range(200):
        (images, labels), (theirs, their_labels) = plain(step), flipping(step)
        assert torch.equal(labels, their_labels)
        for image, other in zip(images, theirs, strict=True):
            flipped = not torch.equal(image, other)
            mirrored += flipped
            assert torch.equal(image.flip(-1) if flipped else image, other)
    assert mirrored == pytest.approx(200 * 12 / 2, abs=5 * (200 * 12 / 4) ** 0.5)
    blocks = again.block(range(40, 43))
    assert torch.equal(blocks.images, torch.stack([flipping(step)[0] for step in range(40, 43)]))


def test_colour_images_are_mirrored_along_their_width(tmp_path: Path) -> None:
    from test_decoding import encoded, photograph

    write_shards([Sample(encoded(photograph()), "png", 0)] * 4, tmp_path / "d", "one", (3, 23, 37), LABELS, "CC0")
    dataset = ShardedDataset.open(tmp_path / "d")
    order = Order(dataset.shard_counts, 1, seed=0, window=4)

    def batches(kind: type[StepReader], flip: bool) -> Tensor:
        preprocessing = Preprocessing(seed=0, horizontal_flip=flip)
        return (
            kind(dataset, order, range(1), 4, (3, 23, 37), preprocessing=preprocessing)
            .block(range(5))
            .images.flatten(0, 1)
        )

    plain = batches(StepReader, False)
    for kind in KINDS:
        flipped = batches(kind, True)
        sides = [torch.equal(image, other) for image, other in zip(plain, flipped, strict=True)]
        assert 0 < sum(sides) < len(sides)
        assert torch.equal(
            flipped, torch.stack([p if same else p.flip(-1) for p, same in zip(plain, sides, strict=True)])
        )


def padded_png(number: int, more_bytes: int) -> bytes:
    """A numbered image with a comment of so many bytes."""
    comment = PngImagePlugin.PngInfo()
    comment.add_text("padding", "x" * more_bytes)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(numbered_png(number))).save(buffer, "PNG", pnginfo=comment)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("counts", "streams", "batch"), [([5, 1], 4, 2), ([9], 4, 2), ([9], 4, 3), ([4, 4, 1], 3, 3), ([1, 20, 3], 8, 2)]
)
def test_any_number_of_shards_feeds_any_number_of_streams(
    tmp_path: Path, counts: list[int], streams: int, batch: int
) -> None:
    """Fewer shards than streams, one shard, one sample more than the batch, shards of unequal sizes."""
    samples = []
    for count in counts:
        # a shard ends where it is full: the first sample of a small one takes the room of those that are missing
        samples.append(Sample(padded_png(len(samples), 2048 * (max(counts) - count)), "png", 0))
        samples += [Sample(numbered_png(len(samples) + i), "png", 0) for i in range(count - 1)]
    write_shards(samples, tmp_path / "d", "unequal", SHAPE, LABELS, "CC0", shard_bytes=max(counts) * 2048)
    dataset = ShardedDataset.open(tmp_path / "d")
    assert dataset.shard_counts.tolist() == counts
    order = Order(dataset.shard_counts, streams, seed=2, window=5)
    whole = StepReader(dataset, order, range(streams), batch, SHAPE)
    epoch_steps = -(-dataset.count // (streams * batch))
    seen = [number for step in range(3 * epoch_steps) for number in numbers(whole(step)[0])]
    assert set(seen) <= set(range(dataset.count))
    assert len(seen) == 3 * epoch_steps * streams * batch
    per_epoch = dataset.count // streams * streams
    assert max(seen.count(number) for number in set(seen)) <= -(-len(seen) // per_epoch)
