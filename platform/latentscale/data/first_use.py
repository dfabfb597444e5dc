"""Bundled datasets, written to shards in the user's cache folder on first use."""

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentscale.atomic import refuse_special_file
from latentscale.decoding.points import POINT_EXTENSION, encode_point
from latentscale.shards.dataset_writer import ShardsExist, write_shards
from latentscale.shards.sample import Sample
from latentscale.sources import digits
from latentscale.sources.cluster_law import ClusterLaw, bundled_points
from latentscale.storage.dataset_files import DATASET_FILE
from latentscale.storage.user_cache import cache_folder

# 1,024 for an image or a point, 1,024 for its label, with tar headers
_SAMPLE_BYTES = 2048
# gives five shards for training, so that there are shards to permute
_SHARD_DIGITS = 300
# the shard sizes determine the order of a run: with another size, earlier runs could not be continued
CLUSTER_SHARD_POINTS = 4096


def bundled_folder(name: str, split: str) -> Path:
    """The folder of a bundled split's shards; writes them if they are absent.

    When several processes of a node need the same split, one writes it and the others wait. Where the file system has
    no locks, each process writes to a temporary folder, and the first to finish wins.

    Args:
        name: ``digits`` (scikit-learn's: ``train`` is the first 1,500, ``test`` the other 297) or ``clusters`` (points
            drawn from the default ``ClusterLaw``: 131,072 and 4,096).
        split: ``train`` or ``test``.

    Raises:
        UserError: the cache folder cannot be written; set ``LATENTSCALE_CACHE``.
    """
    folder = cache_folder() / f"{name}-v1" / split
    if not (folder / DATASET_FILE).exists():
        with node_lock(cache_folder() / f".{name}-v1-{split}.lock"), suppress(ShardsExist):
            if not (folder / DATASET_FILE).exists():
                _WRITE[name](split, folder)
    return folder


def _write_digits(split: str, folder: Path) -> None:
    labels = [str(digit) for digit in range(10)]
    write_shards(
        digits.samples(split),
        folder,
        "digits",
        digits.SHAPE,
        labels,
        digits.LICENCE,
        shard_bytes=_SHARD_DIGITS * _SAMPLE_BYTES,
    )


def _write_clusters(split: str, folder: Path) -> None:
    law = ClusterLaw()
    points, clusters = bundled_points(law, split)
    samples = (
        Sample(encode_point(point), POINT_EXTENSION, label)
        for point, label in zip(points, clusters.tolist(), strict=True)
    )
    # checkpoints identify the data by their values, not by the shards that hold them
    values = {"fingerprint": hashlib.sha256(points.tobytes()).hexdigest()}
    write_shards(
        samples,
        folder,
        "clusters",
        points.shape[1:],
        law.names,
        "generated",
        shard_bytes=CLUSTER_SHARD_POINTS * _SAMPLE_BYTES,
        more={"generated": values},
    )


_WRITE: dict[str, Callable[[str, Path], None]] = {"digits": _write_digits, "clusters": _write_clusters}


@contextmanager
def node_lock(path: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock shared by the processes of this node; does nothing where the file system has no locks.

    Args:
        path: of the lock.
        waits: called before this process waits for another one.
    """
    refuse_special_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError:
        # writing the dataset will fail too, with a message that says why
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
