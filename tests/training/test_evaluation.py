"""What a run measures at its end on held-out samples and their labels."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentscale.commands.app import app
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
