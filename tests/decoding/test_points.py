"""Points in shards: numpy's files read without a risk, built from a law, and read as points from memory are."""

import contextlib
import io
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layouts import contents
from PIL import Image
from web_server import serving

from latentscale.building.build_dataset import build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.order import Order
from latentscale.data.step_reader import Preprocessing, StepReader
from latentscale.decoding.pillow_decoder import ImageRefused
from latentscale.decoding.points import decode_point, encode_point
from latentscale.decoding.sample_arrays import decode
from latentscale.errors import UserError
from latentscale.shards.contact_sheet import Split, _drawn_points, contact_sheet
from latentscale.shards.dataset_writer import Sample, write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.verifying import verify
from latentscale.sources.cluster_law import ClusterLaw
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions
from latentscale.storage.dataset_files import StorageOptions
from launching import Processes

COMMAND = str(Path(sys.executable).with_name("latentscale"))
POINT = np.array([1.5, -2.25], dtype=np.float32)


def saved(array: np.ndarray, **how) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **how)
    return stream.getvalue()


def with_header(text: str, version: bytes = b"\x01\x00", values: bytes = POINT.tobytes()) -> bytes:
    header = text.encode("latin1")
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header + values


def decoded(data: bytes, numbers: int = 2) -> np.ndarray:
    out = np.empty(numbers, dtype=np.float32)
    decode_point(data, out)
    return out


@pytest.mark.parametrize("numbers", [1, 2, 7, 20_000])
def test_a_file_is_numpys_own_and_comes_back_exactly(numbers):
    point = np.random.default_rng(0).normal(size=numbers).astype(np.float32)
    data = encode_point(point)
    assert np.array_equal(np.load(io.BytesIO(data), allow_pickle=False), point)
    assert data == saved(point)
    assert np.array_equal(decoded(data, numbers), point)


def test_headers_of_other_spellings_are_read_too():
    assert np.array_equal(decoded(saved(POINT, version=(2, 0))), POINT)
    assert np.array_equal(decoded(with_header("{'shape':(2,),'fortran_order':True,'descr':'<f4'}")), POINT)


def test_reading_leaves_the_filters_of_warnings_alone(monkeypatch):
    """They are the whole process's, and points are decoded in threads."""

    def refused(*arguments: object, **named: object) -> None:
        raise AssertionError("filters are touched")

    for name in ("catch_warnings", "simplefilter", "filterwarnings"):
        monkeypatch.setattr(warnings, name, refused)
    assert np.array_equal(decoded(saved(POINT, version=(2, 0))), POINT)
    with pytest.raises(ImageRefused, match="header is damaged"):
        decoded(with_header("{'descr':'<f4','fortran_order':False,'shape':(2L,)}"))


class Bomb:
    """Unpickled, it would say so."""

    def __reduce__(self):
        return print, ("unpickled",)


WHOLE = encode_point(POINT)
DAMAGED = {
    "nothing": (b"", "header is damaged"),
    "no numpy": (b"P5 1 1 255 x", "header is damaged"),
    "a pickle": (pickle.dumps(Bomb()), "header is damaged"),
    "objects": (saved(np.array([Bomb(), Bomb()]), allow_pickle=True), "object of shape .2. instead of float32"),
    "cut off in the header": (WHOLE[:60], "header is damaged"),
    "cut off in the values": (WHOLE[:-3], "5 bytes of values instead of 8"),
    "longer": (WHOLE + b"\0", "9 bytes of values instead of 8"),
    "another type": (saved(POINT.astype(np.float64)), "float64 of shape .2. instead of float32"),
    "another order of bytes": (saved(POINT.astype(">f4")), ">f4 of shape .2. instead of float32"),
    "another number": (saved(np.ones(3, np.float32)), "float32 of shape .3. instead of float32 of .2."),
    "another rank": (saved(np.ones((2, 1), np.float32)), "of shape .2, 1. instead"),
    "a structure": (saved(np.zeros(2, np.dtype([("a", "<f4")]))), "of shape .2. instead"),
    "a bomb": (with_header("{'descr':'<f4','fortran_order':False,'shape':(99999999999,)}"), "of shape .99999999999."),
    "a header bomb": (with_header("(" * 60_000, b"\x02\x00"), "header is damaged"),
    "a deep header": (with_header("{'descr':" + "[" * 500 + "]" * 500 + "}"), "header is damaged"),
    "a long header": (with_header("{'descr':'<f4','fortran_order':False,'shape':(2,)}" + " " * 5000), "header is dam"),
    "a false length": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "header is damaged"),
    "code": (with_header("__import__('os').system('true')"), "header is damaged"),
    "another version": (with_header("{'descr':'<f4','fortran_order':False,'shape':(2,)}", b"\x09\x00"), "is damaged"),
    "of Python 2": (with_header("{'descr':'<f4','fortran_order':False,'shape':(2L,)}"), "header is damaged"),
    "of Python 2, apart": (with_header("{'descr':'<f4','fortran_order':False,'shape':(2 L,)}"), "header is damaged"),
    "with escapes": (with_header("{'descr':'\\\\d','fortran_order':False,'shape':(2,)}"), "header is damaged"),
    "not a number": (encode_point(np.array([1, np.nan], np.float32)), "not finite"),
    "infinite": (encode_point(np.array([np.inf, -np.inf], np.float32)), "not finite"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_in_one_line_and_nothing_is_unpickled(name, capsys):
    data, words = DAMAGED[name]
    with pytest.raises(UserError, match=rf"shard-0 member 3 is not a readable point .*{words}") as refused:
        decode(data, (2,), "shard-0 member 3")
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


@given(st.integers(0, 127), st.integers(0, 255))
def test_any_byte_of_the_header_may_change_without_harm(at, value):
    data = bytearray(WHOLE)
    data[at] = value
    with contextlib.suppress(ImageRefused):
        assert np.array_equal(decoded(bytes(data)), POINT)


def built(out: Path, shard_bytes: int = 40 * 2048, workers: int = 0, **options) -> Path:
    listing = list_source("clusters", None, SourceOptions(**{"count": 300, "test_count": 30, **options}))
    build_dataset(
        "clusters", listing, out, ImageOptions(seed=options.get("seed", 0)), BuildOptions(shard_bytes, workers)
    )
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("points") / "clusters")


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """The points of the law, and their clusters."""
    return ClusterLaw().draw(0, 0, 300)


@pytest.mark.slow
def test_a_build_holds_the_points_of_the_law(shards, drawn, tmp_path):
    dataset = ShardedDataset.open(shards / "train")
    assert (dataset.shape, dataset.count, dataset.extensions) == ((2,), 300, ["npy"])
    points, clusters = drawn
    assert dataset.labels == ClusterLaw().names
    assert dataset.shard_counts.tolist() == [40] * 7 + [20]
    number = 0
    for shard, count in enumerate(dataset.shard_counts.tolist()):
        for member in range(count):
            data, extension, label = dataset.read(shard, member)
            assert extension == "npy"
            assert np.array_equal(decoded(data), points[number])
            assert label == clusters[number]
            number += 1
    for workers in (1, 2):
        assert contents(built(tmp_path / str(workers), workers=workers)) == contents(shards)
    assert contents(built(tmp_path / "seed", seed=1)) != contents(shards)
    assert verify(shards, 0).broken == []
    assert verify(shards, 2).samples == 330


@pytest.mark.slow
def test_another_law_is_drawn_and_stated(tmp_path):
    out = built(tmp_path / "out", means="0,0,5;9,9,9", deviation=0.01, probabilities="0.25,0.75", count=4000)
    dataset = ShardedDataset.open(out / "train")
    assert (dataset.shape, dataset.labels) == ((3,), ["(0, 0, 5)", "(9, 9, 9)"])
    share = dataset.label_counts()[1] / 4000
    assert abs(share - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4000)
    data, _, label = dataset.read(0, 0)
    assert np.abs(decoded(data, 3) - [[0, 0, 5], [9, 9, 9]][label]).max() < 0.1
    text = (out / "train/dataset.json").read_text()
    assert "2 Gaussian clusters with means (0, 0, 5); (9, 9, 9), deviation 0.01 in every coordinate" in text
    assert "probabilities 0.25, 0.75; drawn by seed 0" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"means": "1,2;3"}, "--means 1,2;3: all must have the same number of coordinates"),
        ({"means": "1,x"}, "--means 1,x cannot be read"),
        ({"means": "1,2;1,2"}, "has a mean twice"),
        ({"means": "1,inf"}, "cannot be read"),
        ({"probabilities": "0.5,0.5"}, "2 probabilities for 4 clusters"),
        ({"probabilities": "0.1,0.2,0.3,0.5"}, "sum to 1"),
        ({"probabilities": "0.1,0.2,-0.3,1"}, "must be positive"),
        ({"deviation": 0.0}, "--deviation 0 is not allowed"),
        ({"deviation": float("nan")}, "--deviation nan is not allowed"),
        ({"deviation": 1e31}, "--deviation 1e+31 is not allowed: it must be positive and below 1e+30"),
        ({"count": 10**12}, "--count 1000000000000 is not allowed: at most 11184810 points of 2 coordinates"),
        ({"test_count": 10**12, "means": "1;2"}, "--test-count 1000000000000 is not allowed: at most 13421772"),
        ({"patches": "grid"}, "--patches is not used by clusters"),
        ({"split": "all", "test_count": 3}, "--test-count is not used with --split all"),
    ],
)
def test_what_makes_no_law_is_refused(options, message):
    with pytest.raises(UserError) as refused:
        list_source("clusters", None, SourceOptions(**options))
    assert message in str(refused.value)


def test_means_that_differ_little_have_names_that_differ(tmp_path):
    built(tmp_path / "out", means="1.00000001,2;1.00000002,2;-1e-7,20000000", count=30, test_count=3)
    assert ShardedDataset.open(tmp_path / "out/train").labels == [
        "(1.00000001, 2)",
        "(1.00000002, 2)",
        "(-1e-07, 20000000)",
    ]


def test_what_is_asked_of_images_is_refused(tmp_path):
    listing = list_source("clusters", None, SourceOptions(count=5))
    for images, option in ((ImageOptions(resolution=8), "resolution"), (ImageOptions(png_compression=1), "png-compr")):
        with pytest.raises(UserError, match=f"--{option}.* is not used by clusters, which are points"):
            build_dataset("clusters", listing, tmp_path / "out", images, BuildOptions())
    with pytest.raises(UserError, match="--count is not used by digits"):
        list_source("digits", None, SourceOptions(count=5))
    with pytest.raises(UserError, match="PATH here is not used by clusters"):
        list_source("clusters", Path("here"), SourceOptions())


@pytest.mark.parametrize("kind", [StepReader, MemoryCachedReader])
def test_a_step_holds_the_points_that_stand_there(shards, drawn, kind):
    dataset = ShardedDataset.open(shards / "train")
    order = Order(dataset.shard_counts, 4, seed=3, window=100)
    layout = np.arange(10).reshape(2, 5).T.ravel()
    reader = kind(dataset, order, range(1, 3), 5, (2,), layout)
    firsts = np.cumsum(dataset.shard_counts) - dataset.shard_counts
    points, clusters = drawn
    for _ in range(2):
        read, labels, _ = reader.block(range(7, 9))
        assert read.dtype == torch.float32
        for row, step in enumerate((7, 8)):
            located = [order.locate(stream, step * 5 + i) for i in range(5) for stream in (1, 2)]
            chosen = [firsts[shard] + member for shard, member in located]
            assert torch.equal(read[row], torch.from_numpy(points[chosen]))
            assert labels[row].tolist() == clusters[chosen].tolist()
    with pytest.raises(UserError, match=r"holds samples of shape \[2\], not \[1, 8, 8\]"):
        kind(dataset, order, range(1, 3), 5, (1, 8, 8))


def test_a_damaged_point_is_named_by_shard_and_member_or_skipped(tmp_path):
    samples = [Sample(encode_point(POINT + n), "npy", 0) for n in range(20)]
    samples[13] = Sample(saved(np.ones(2)), "npy", 0)
    write_shards(samples, tmp_path / "data", "points", (2,), ["a"], "CC0", shard_bytes=10 * 2048)
    (line,) = verify(tmp_path / "data", 0).broken
    assert "shard-000001.tar member 000000013.npy is not a readable point (float64 of shape [2]" in line
    dataset = ShardedDataset.open(tmp_path / "data")
    order = Order(dataset.shard_counts, 1, seed=0, window=20)
    for kind in (StepReader, MemoryCachedReader):
        with pytest.raises(UserError, match=r"shard-000001\.tar member 3 is not a readable point"):
            kind(dataset, order, range(1), 20, (2,)).block(range(1))
        reader = kind(dataset, order, range(1), 20, (2,), preprocessing=Preprocessing(skip_errors=True))
        points, _, skipped = reader.block(range(1))
        assert [(one.shard, one.member) for one in skipped[0]] == [(1, 3)]
        assert torch.isfinite(points).all()


@pytest.mark.slow
def test_a_plot_of_points_behind_a_url_takes_few_requests(tmp_path):
    out = built(tmp_path / "many", shard_bytes=700 * 2048, count=4000, test_count=50)
    here = [
        Split(name, one, one.stored_labels()) for name in ("train", "test") if (one := ShardedDataset.open(out / name))
    ]
    with serving(out) as web:
        options = StorageOptions(tmp_path / "cache", retry_seconds=5.0, stall_seconds=5.0)
        there = [
            Split(split.name, ShardedDataset.open(f"{web.url}/{split.name}", options), split.labels) for split in here
        ]
        assert contact_sheet(there).tobytes() == contact_sheet(here).tobytes()
        asked = {name: count for name, count in web.ranges.items() if name.endswith(".tar")}
        # 30 runs of the 40, some of which lie in two shards, and one shard of the test split
        assert 5 <= sum(asked.values()) <= 40
        assert web.tars() == {}
    numbers = _drawn_points(4000)
    assert len(numbers) == len(set(numbers.tolist())) == 3000
    assert _drawn_points(250).tolist() == list(range(250))


@pytest.mark.slow
def test_the_commands_work_on_points(tmp_path):
    processes = Processes()

    def shards(*arguments: str) -> str:
        finished = processes.run([COMMAND, "shards", *arguments], tmp_path, COLUMNS="100")
        assert finished.code == 0, finished.err
        return finished.out

    law = ("--means", "-1,1;0,-2;1,-1;2,1", "--deviation", "0.3", "--seed", "5", "--workers", "1")
    out = shards("build", "clusters", "--out", "c", "--count", "60", "--test-count", "12", *law)
    assert "train: 60 points, labels (-1, 1), (0, -2), (1, -1), (2, 1)\ntest: 12 points" in out
    assert "c: 72 samples in 2 shards of 2 datasets, all intact" in shards("verify", "c", "--workers", "0")
    out = shards("info", "c", "--picture", "c.png")
    assert "2 numbers  npy" in out
    assert "drawn by seed 5" in " ".join(out.split())
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 1000  # two plots
        assert len(picture.convert("RGB").getcolors(2**24)) > 20
    out = shards("split", "c/train", "--out", "fold", "--folds", "3", "--fold", "0", "--stratified")
    assert out == "fold: 40 train, 20 test samples\n"
    assert verify(tmp_path / "fold", 0).broken == []
