"""The four Gaussian clusters: their law, and reading them in the order of streams."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from latentscale.data.clusters import CENTRES, DEVIATION, PROBABILITIES, SHARD_POINTS, Clusters, PointReader
from latentscale.data.datasets import available_splits, open_dataset
from latentscale.data.order import Order
from latentscale.errors import UserError


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_points_have_the_law_that_is_stated(split: str) -> None:
    data = Clusters(split)
    counts = np.bincount(data.classes, minlength=4)
    assert chisquare(counts, PROBABILITIES * data.count).pvalue > 1e-3
    standard = (data.points - CENTRES[data.classes]) / DEVIATION
    for axis in range(2):
        assert kstest(standard[:, axis], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(standard.T)[0, 1]) < 5 / np.sqrt(data.count)
    assert np.array_equal(Clusters(split).points, data.points)


def test_splits_share_no_point() -> None:
    train, test = ({tuple(point) for point in Clusters(split).points.tolist()} for split in ("train", "test"))
    assert not train & test


def test_a_step_holds_each_streams_next_positions() -> None:
    data = Clusters()
    order = Order(data.shard_counts, 4, seed=3, window=1000)
    reader = PointReader(data, order, range(1, 3), 5, np.arange(10).reshape(2, 5).T.ravel())
    points, labels, _ = reader.block(range(7, 9))
    for row, step in enumerate((7, 8)):
        located = [order.locate(stream, step * 5 + i) for i in range(5) for stream in (1, 2)]
        chosen = [shard * SHARD_POINTS + member for shard, member in located]
        assert torch.equal(points[row], torch.from_numpy(data.points[chosen]))
        assert labels[row].tolist() == data.classes[chosen].tolist()
        assert torch.equal(reader(step)[0], points[row])


def test_clusters_are_named_like_any_data() -> None:
    assert isinstance(open_dataset("clusters", None, "test"), Clusters)
    assert available_splits("clusters") == ("train", "test")
    with pytest.raises(UserError, match=r"data\.path=here is not used by data\.name=clusters"):
        open_dataset("clusters", "here")
