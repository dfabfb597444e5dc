"""Points of Gaussian clusters; by default those of ``data.name=clusters``."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError
from latentscale.sources.cluster_law import COUNTS, ClusterLaw
from latentscale.sources.labels import Labels
from latentscale.sources.listing import Generated, Item, Listing
from latentscale.sources.source_options import SourceOptions

_SUM_TOLERANCE = 1e-6
# leaves room below float32's maximum for points far from their mean
_MAX_MAGNITUDE = 1e30
# per split: it is drawn at once and listed point by point, which takes some gigabytes of memory at this limit
_MAX_NUMBERS, _NUMBERS_PER_ITEM = 2**26, 4


@dataclass(frozen=True)
class ClusterReader:
    """Reads points, which the items hold in memory."""

    def read(self, item: Item) -> NDArray[np.float32]:
        return np.array(item.place, dtype=np.float32)


def list_clusters(path: Path | None, options: SourceOptions) -> Listing:
    """List a train and a test split of points, labelled by their cluster.

    Raises:
        UserError: an option is invalid; the message names it.
    """
    if path is not None:
        raise UserError(f"PATH {path} is not used by clusters, which are drawn from --seed: leave it out")
    law = _law(options)
    counts = {"train": options.count or COUNTS["train"], "test": options.test_count or COUNTS["test"]}
    if options.split != "published":
        if options.test_count:
            raise UserError(f"--test-count is not used with --split {options.split}: leave one of them out")
        del counts["test"]
    dimensions = len(law.means[0])
    limit = _MAX_NUMBERS // (dimensions + _NUMBERS_PER_ITEM)
    for split, option in (("train", "--count"), ("test", "--test-count")):
        if counts.get(split, 0) > limit:
            raise UserError(
                f"{option} {counts[split]} is not allowed: at most {limit} points of {dimensions} coordinates"
                " fit into a split"
            )
    means = "; ".join(law.names)
    probabilities = ", ".join(f"{probability:g}" for probability in law.probabilities)
    return Listing(
        name="clusters",
        licence="generated",
        splits={
            split: _items(law, options.seed, number, split, count)
            for number, (split, count) in enumerate(counts.items())
        },
        reader=ClusterReader(),
        labels=Labels(tuple(law.names), of=("cluster",)),
        same_in_test=options.split == "all",
        generated=Generated(
            (len(law.means[0]),),
            (
                f"{len(law.means)} Gaussian clusters with means {means}, deviation {law.deviation:g} in every"
                f" coordinate, probabilities {probabilities}; drawn by seed {options.seed}",
                "float32, a .npy file a point",
            ),
        ),
    )


def _items(law: ClusterLaw, seed: int, number: int, split: str, count: int) -> list[Item]:
    points, clusters = law.draw(seed, number, count)
    if not np.isfinite(points).all():
        raise UserError("--means and --deviation give points outside the range of float32: choose smaller numbers")
    # a resumed build detects that points differ in their last bits, as with another version of a library
    bits = points.view(np.uint32).tolist()
    return [
        Item(f"{split}[{i}]", tuple(point), tuple(bits[i]), label)
        for i, (point, label) in enumerate(zip(points.tolist(), clusters.tolist(), strict=True))
    ]


def _law(options: SourceOptions) -> ClusterLaw:
    means, default = ClusterLaw.means, ClusterLaw.probabilities
    if options.means:
        means = tuple(tuple(_numbers(mean, "--means", options.means)) for mean in options.means.split(";"))
        if len({len(mean) for mean in means}) != 1:
            raise UserError(
                f"--means {options.means}: all must have the same number of coordinates, such as -1,1;0,-2;1,-1"
            )
        if len(set(means)) != len(means):
            raise UserError(f"--means {options.means} has a mean twice: give each cluster once")
        default = (1.0 / len(means),) * len(means)
    probabilities = default
    if options.probabilities:
        probabilities = tuple(_numbers(options.probabilities, "--probabilities", options.probabilities))
        if len(probabilities) != len(means):
            raise UserError(
                f"--probabilities {options.probabilities}: {len(probabilities)} probabilities for"
                f" {len(means)} clusters: give one per cluster"
            )
        if min(probabilities) <= 0 or abs(math.fsum(probabilities) - 1.0) > _SUM_TOLERANCE:
            raise UserError(f"--probabilities {options.probabilities}: they must be positive and sum to 1")
    deviation = ClusterLaw.deviation if options.deviation is None else options.deviation
    if not 0 < deviation < _MAX_MAGNITUDE:
        raise UserError(f"--deviation {deviation:g} is not allowed: it must be positive and below {_MAX_MAGNITUDE:g}")
    return ClusterLaw(means, deviation, probabilities)


def _numbers(text: str, option: str, whole: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(abs(number) < _MAX_MAGNITUDE for number in numbers):
        raise UserError(
            f"{option} {whole} cannot be read: give numbers, such as -1,1;0,-2 for --means or 0.3,0.7 for"
            " --probabilities"
        )
    return numbers
