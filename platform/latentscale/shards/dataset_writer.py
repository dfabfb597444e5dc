"""Samples written to a dataset folder that is complete or absent."""

import errno
import json
import math
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentscale.atomic import flush_to_disk
from latentscale.errors import UserError
from latentscale.shards.sample import DEFAULT_SHARD_BYTES, Sample
from latentscale.shards.shard_format import FORMAT, VERSION, ShardEntry
from latentscale.shards.shard_writer import ShardWriter
from latentscale.storage.dataset_files import DATASET_FILE


class ShardsExist(UserError):
    """The folder to be written already holds something."""


@dataclass(frozen=True)
class Description:
    """What dataset.json says of a dataset beside its shards.

    Attributes:
        name: of the dataset.
        shape: (C, H, W) of every image, (D,) of points.
        labels: their names, empty for unlabelled data; of several labels a sample the names of all combinations,
            the last label's running fastest.
        licence: of the data, in words.
        label_sizes: of several labels a sample, their numbers of categories.
        more: further keys, such as ``transform`` and ``source``.
    """

    name: str
    shape: tuple[int, ...]
    labels: Sequence[str]
    licence: str
    label_sizes: Sequence[int] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, entries: Sequence[ShardEntry], extensions: Sequence[str]) -> None:
        """Write the folder's dataset.json and wait until it is on the disk."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "shape": list(self.shape),
            "count": sum(entry.count for entry in entries),
            "labels": list(self.labels),
            **({"label_sizes": list(self.label_sizes)} if self.label_sizes else {}),
            "licence": self.licence,
            **self.more,
            "extensions": list(extensions),
            "shards": [asdict(entry) for entry in entries],
        }
        (folder / DATASET_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        flush_to_disk(folder / DATASET_FILE)
        flush_to_disk(folder)


def write_shards(
    samples: Iterable[Sample],
    out: Path,
    name: str,
    shape: tuple[int, ...],
    labels: list[str],
    licence: str,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    label_sizes: Sequence[int] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a dataset folder that is complete or absent; equal samples give equal bytes.

    Args:
        samples: in their order; the label of each is an index into ``labels``.
        out: the folder, which must not exist or be empty.
        name, shape, labels, licence, label_sizes, more: as in :class:`Description`.
        shard_bytes: a shard ends before it would grow beyond this, but holds one sample at least.

    Raises:
        ShardsExist: ``out`` already holds something.
        UserError: no samples, a label without a name, or the folder cannot be written.
    """
    out = Path(out)
    if label_sizes and math.prod(label_sizes) != len(labels):
        raise UserError(f"{out}: label_sizes={list(label_sizes)} make no {len(labels)} combinations: name each one")
    with new_dataset(out) as folder:
        writer = ShardWriter(folder, len(labels), shard_bytes, out)
        try:
            for sample in _reading(samples, out):
                writer.append(sample)
            writer.finish()
        finally:
            writer.close()
        if not writer.entries:
            raise UserError(f"{out}: there are no samples to write: check where they are read from")
        Description(name, shape, labels, licence, label_sizes, more or {}).write(
            folder, writer.entries, writer.extensions
        )


def with_own_name(out: Path) -> Path:
    """The folder by a name of its own: beside ``.`` and ``..`` nothing could be called after them."""
    return out if out.name not in ("", "..") else out.resolve()


def refuse_existing(out: Path) -> None:
    """Raise ShardsExist where something stands in the place of a new dataset."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ShardsExist(f"{out} already exists: remove it, or write the shards to another folder")


@contextmanager
def new_dataset(out: Path) -> Iterator[Path]:
    """Yield a folder beside ``out`` that becomes it when the body ends, and is removed where the body raises.

    Raises:
        ShardsExist: ``out`` already holds something, or another process was quicker.
        UserError: the folder cannot be written.
    """
    refuse_existing(out)
    aside = out.parent / f".{out.name}.{uuid.uuid4().hex}.partial"
    try:
        aside.mkdir(parents=True)
        yield aside
        flush_to_disk(aside)
        aside.rename(out)
        flush_to_disk(out.parent)
    except OSError as error:
        raise write_error(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_error(out: Path, error: OSError, then: str = "run the same command again") -> UserError:
    """What an error of the file system means for a dataset that was to become ``out``.

    Args:
        then: what is to be done when there is room.
    """
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return ShardsExist(f"{out} was written by another process meanwhile: remove it, or write to another folder")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{out} cannot be written ({error.strerror}): make room in {out.parent.resolve()}, and {then}")
    return UserError(f"{out} cannot be written ({error.strerror}): mend that, or name another folder")


def _reading(samples: Iterable[Sample], out: Path) -> Iterator[Sample]:
    try:
        yield from samples
    except OSError as error:
        # A file that cannot be read must not be reported as a folder that cannot be written.
        raise UserError(
            f"{error.filename or 'a sample'} cannot be read ({error.strerror}) while writing {out}: mend "
            "it or leave it out"
        ) from error
