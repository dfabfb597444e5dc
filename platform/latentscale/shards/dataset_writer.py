"""Writing a dataset folder atomically: after a failure the folder does not exist."""

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
    """The output folder already exists and is not empty."""


@dataclass(frozen=True)
class Description:
    """The part of dataset.json that does not list shards.

    Attributes:
        name: the dataset's name.
        shape: (C, H, W) of every image, or (D,) of every point.
        labels: the label names, empty for unlabelled data. If samples have several labels, the names of all
            combinations, the last label varying fastest.
        licence: the data's licence, as text.
        label_sizes: if samples have several labels, the number of categories of each.
        more: additional keys, such as ``transform`` and ``source``.
    """

    name: str
    shape: tuple[int, ...]
    labels: Sequence[str]
    licence: str
    label_sizes: Sequence[int] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, entries: Sequence[ShardEntry], extensions: Sequence[str]) -> None:
        """Write the folder's dataset.json and flush it to disk."""
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
    """Write a dataset folder atomically; the same samples give the same bytes.

    Args:
        samples: the samples in order; the label of each is an index into ``labels``.
        out: the output folder, which must be absent or empty.
        name, shape, labels, licence, label_sizes, more: as in :class:`Description`.
        shard_bytes: the maximum size of a shard; a shard holds at least one sample.

    Raises:
        ShardsExist: ``out`` is not empty.
        UserError: there are no samples, a label has no name, or the folder cannot be written.
    """
    out = Path(out)
    if label_sizes and math.prod(label_sizes) != len(labels):
        raise UserError(
            f"{out}: label_sizes={list(label_sizes)} need {math.prod(label_sizes)} label names, got {len(labels)}: name"
            " each combination"
        )
    with new_dataset(out) as folder:
        writer = ShardWriter(folder, len(labels), shard_bytes, out)
        try:
            for sample in _reading(samples, out):
                writer.append(sample)
            writer.finish()
        finally:
            writer.close()
        if not writer.entries:
            raise UserError(f"{out}: there are no samples to write: check the source")
        Description(name, shape, labels, licence, label_sizes, more or {}).write(
            folder, writer.entries, writer.extensions
        )


def with_own_name(out: Path) -> Path:
    """Return a path that ends in a folder name, resolving ``.`` and ``..``; temporary folders are named after it."""
    return out if out.name not in ("", "..") else out.resolve()


def refuse_existing(out: Path) -> None:
    """Raise ShardsExist if ``out`` exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ShardsExist(f"{out} already exists: remove it, or choose another output folder")


@contextmanager
def new_dataset(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to ``out`` on success and removed on failure.

    Raises:
        ShardsExist: ``out`` is not empty, or another process wrote it first.
        UserError: the folder cannot be written.
    """
    refuse_existing(out)
    temporary = out.parent / f".{out.name}.{uuid.uuid4().hex}.partial"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        flush_to_disk(temporary)
        temporary.rename(out)
        flush_to_disk(out.parent)
    except OSError as error:
        raise write_error(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_error(out: Path, error: OSError, then: str = "run the same command again") -> UserError:
    """Turn an OSError while writing the dataset ``out`` into a message with a remedy.

    Args:
        out: the output folder.
        error: the error.
        then: what to do after making room on a full disk.
    """
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return ShardsExist(
            f"{out} was written by another process in the meantime: remove it, or choose another output folder"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{out} cannot be written ({error.strerror}): make room in {out.parent.resolve()}, and {then}")
    return UserError(f"{out} cannot be written ({error.strerror}): fix the cause, or choose another output folder")


def _reading(samples: Iterable[Sample], out: Path) -> Iterator[Sample]:
    try:
        yield from samples
    except OSError as error:
        # otherwise a source file that cannot be read would be reported as an output folder that cannot be written
        raise UserError(
            f"{error.filename or 'a sample'} cannot be read ({error.strerror}) while writing {out}: fix it "
            "or leave it out"
        ) from error
