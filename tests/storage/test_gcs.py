"""Shards in a Google bucket: the real client against a server of the few requests that reading makes."""

import pytest
from buckets import google_bucket

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions


@pytest.fixture
def bucket(numbered, monkeypatch):
    with google_bucket(numbered(10, 4).path) as (url, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield url


def test_samples_are_those_of_the_local_copy_and_what_is_missing_is_named(bucket, numbered, tmp_path):
    local = numbered(10, 4)
    options = StorageOptions(tmp_path / "cache", 2**20, 5.0, 5.0)
    remote = ShardedDataset.open(bucket, options)
    assert remote.fingerprint == local.fingerprint
    assert list(remote.read_sparse([(2, 1)])) == [local.read(2, 1)]
    for shard, member in ((0, 3), (2, 1)):
        assert remote.read(shard, member) == local.read(shard, member)
    with pytest.raises(UserError, match=r"gs://bucket/nothing/dataset\.json cannot be read"):
        ShardedDataset.open("gs://bucket/nothing", options)
