"""What a run measures at its end on held-out samples and their labels."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from latentscale.commands.app import app
from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sample import Sample
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.training.held_out import read_labels
from launching import Train

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("damaged", [False, True])
def test_accuracy_is_measured_only_where_every_label_belongs_to_its_image(
    damaged: bool, train: Train, tmp_path: Path
) -> None:
    built = CliRunner().invoke(app, ["shards", "build", "digits", "--out", str(tmp_path / "digits")])
    assert built.exit_code == 0, built.output
    if damaged:
        shard = tmp_path / "digits" / "test" / "shard-000000.tar"
        content = bytearray(shard.read_bytes())
        # in the first image, which is among those measured on: it is left out, its label is not
        content[content.index(b"IDAT") + 20] ^= 1
        shard.write_bytes(content)
    changes = {"data__name": "shards", "data__path": tmp_path / "digits", "data__on_error": "skip"}
    train("classifier", tmp_path / "run", training__steps=1, **changes)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["evaluation/real_images"] == (15 if damaged else 16)
    assert ("evaluation/accuracy" in last) is not damaged
    # what does not apply to a classifier is there, without value
    assert last["evaluation/psnr_db"] is None


def test_labels_are_unknown_where_a_sample_has_none(tmp_path: Path) -> None:
    image = BytesIO()
    Image.new("L", (8, 8)).save(image, "PNG")
    labels = [2, 0, None, 1]
    samples = (Sample(image.getvalue(), "png", label) for label in labels)
    write_shards(samples, tmp_path / "data", "few", (1, 8, 8), list("abc"), "")
    dataset = ShardedDataset.open(tmp_path / "data")
    assert read_labels(dataset, 4) is None
    known = read_labels(dataset, 2)  # the first and the last
    assert known is not None
    assert known.tolist() == [[2], [1]]
