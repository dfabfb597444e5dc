"""Several attributes of an image reach a training step as they stand in CelebA's list."""

from pathlib import Path

import torch
from layouts import CELEBA_ATTRIBUTES, built, celeba, celeba_values, pixels, samples

from latentscale.config import load_config
from latentscale.methods.aedlsgan import AEDLSGAN
from latentscale.training.checks import plan_run
from latentscale.training.feed import Feed
from latentscale.training.method_building import build_method
from launching import overrides

CHOSEN = ("Smiling", "Bangs", "Male")


def test_a_step_has_a_row_of_attributes_for_each_image(tmp_path: Path) -> None:
    celeba(tmp_path / "in", count=32)
    built("celeba", tmp_path / "in", tmp_path / "out", attributes=CHOSEN, resolution=8, fit="stretch")
    values = {}
    for sample, image in zip(samples(tmp_path / "out/train"), pixels(tmp_path / "out/train"), strict=True):
        number = int(Path(str((sample.origin or {})["name"])).stem)
        of_all = dict(zip(CELEBA_ATTRIBUTES, celeba_values(number), strict=True))
        values[image.tobytes()] = [int(of_all[name] == 1) for name in CHOSEN]
    assert len(values) > 16
    changes = {
        "run__dir": tmp_path / "run",
        "data__name": "shards",
        "data__path": tmp_path / "out",
        "training__steps": 3,
        "training__batch": 8,
        "distributed__streams": 4,
    }
    plan = plan_run(load_config(AEDLSGAN.Settings, "aedlsgan", {"preset": ""}, overrides(**changes)), AEDLSGAN)
    seen = set()
    with Feed(plan, build_method(plan), 0, torch.device("cpu"), torch.float64, 0) as feed:
        for step in range(3):
            (batch,) = feed.fetch(step)
            assert batch.labels is not None
            assert batch.labels.shape == (8, len(CHOSEN))
            images = ((batch.real + 1) * 127.5).round().to(torch.uint8).numpy()
            for image, row in zip(images, batch.labels.tolist(), strict=True):
                assert row == values[image.tobytes()]
                seen.add(tuple(row))
    assert len(seen) > 4
