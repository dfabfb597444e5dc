"""The documents: every shell command works as written, every link leads somewhere, every cited paper is listed."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from layouts import afhq, built, celeba, fill, image_bytes, mnist, noise, tar, tar_bytes
from sklearn.datasets import load_digits

from documents import DOCUMENTS, LANGUAGES, PROGRAMS, Workplace, blocks, commands
from latentscale.inversion.image_input import as_model_input
from launching import ROOT, Processes
from tiny_models import DIM, tiny_model

NAMES = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
CITED = [*(ROOT / "platform").rglob("*.py"), *(ROOT / "recipes").rglob("*.py"), *(ROOT / "recipes").rglob("*.yaml")]
CITATION = re.compile(r"((?:\b[A-Z][\w-]+ and )?\b[A-Z][\w-]+(?: et al\.)?) ((?:19|20)\d\d)\b")


def make_images(folder: Path, count: int = 64) -> Path:
    """Photographs of several sizes in folders, which are labels."""
    for number in range(count):
        path = folder / ("cats" if number % 2 else "dogs") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(number, (70 + number, 64)).save(path)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "photos")


@pytest.fixture(scope="module")
def dataset(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 256×256, which some documents take for one that their reader has."""
    folder = tmp_path_factory.mktemp("dataset") / "built"
    built(
        "folder", fill(images.parent / "more", {f"{n}.png": image_bytes(n) for n in range(64)}), folder, resolution=256
    )
    return folder


def files_of_images(folder: Path) -> None:
    """The tars, parquet and NumPy files that docs/data.md names."""
    for number in range(5):
        tar(folder / f"pets-train-{number:06d}.tar", {f"{number}.png": image_bytes(number), f"{number}.cls": b"0"})
    inner = {f"n{kind}.tar": tar_bytes({f"n{kind}_0.JPEG": image_bytes(kind, kind="JPEG")}) for kind in range(2)}
    tar(folder / "ILSVRC2012_img_train.tar", inner)
    (folder / "cifar100").mkdir()
    columns = {"img": [image_bytes(0), image_bytes(1)], "fine_label": [0, 1], "coarse_label": [0, 0]}
    parquet.write_table(pyarrow.table(columns), folder / "cifar100" / "train-00000-of-00001.parquet")
    (folder / "imagenet32").mkdir()
    rows = np.zeros((2, 3 * 32 * 32), np.uint8)
    np.savez(folder / "imagenet32" / "train_data_batch_1.npz", data=rows, labels=np.array([1, 2]))


@pytest.fixture
def workplace(
    tmp_path: Path, images: Path, dataset: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "photos").symlink_to(images)
    noise(1, (90, 70)).save(folder / "photo.jpg")
    tiny_model().save(folder / "runs" / "pvdgan" / "model")
    afhq(folder / "afhq")
    celeba(folder / "celeba")
    mnist(folder / "mnist")
    files_of_images(folder)
    return Workplace(folder, processes, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_command_works_as_written(name: str, workplace: Workplace, dataset: Path) -> None:
    found = commands(ROOT / name)
    workplace.as_written = name == "README.md"
    made = {word for command in found for before, word in pairwise(command.argv) if before == "--out"}
    for folder in {"data/photos", "data/ffhq256", "data/afhq256"} - made:
        (workplace.folder / folder).parent.mkdir(exist_ok=True)
        (workplace.folder / folder).symlink_to(dataset)
    for command in found:
        try:
            workplace.check(command.argv, command.whole)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{command.place}: {' '.join(command.argv)}\n{error}")


@pytest.mark.slow
def test_a_command_of_no_known_kind_fails(workplace: Workplace) -> None:
    for argv in (["rsync", "runs", "backup"], ["latentscale", "inverts"], ["python", "recipes/pvgan.py"],
                 ["make", "trane"], ["pip", "install", "latentscale[s4]"], ["torchrun", "recipes/pvdgan.py", "a=1"],
                 ["accelerate", "launch", "--num_process", "2", "recipes/pvdgan.py", "training.batchs=3"],
                 ["python", "-m", "latentscale.launching.node", "--node", "2", "recipes/pvdgan.py"]):  # fmt: skip
        with pytest.raises((Exception, SystemExit)):
            workplace.check(argv)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_its_language_and_no_command_stands_outside_of_one(name: str) -> None:
    document = ROOT / name
    fenced: set[int] = set()
    for block in blocks(document):
        assert block.language in LANGUAGES, f"{name}:{block.line}"
        fenced |= set(range(block.line, block.line + block.text.count("\n")))
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if number not in fenced and line.startswith("    "):
            assert not line.strip().startswith(PROGRAMS), f"{name}:{number} is not in a bash block"


@pytest.mark.parametrize("name", ["README.md", "launchers/README.md", "docs/recipes.md"])
def test_every_python_block_is_python(name: str) -> None:
    found = [block for block in blocks(ROOT / name) if block.language == "python"]
    for block in found:
        compile(block.text, f"{name}:{block.line}", "exec")
    assert found


def test_the_readmes_python_works_as_written(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the commands that stand before it, with nothing else at hand."""
    (block,) = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
    for command in commands(ROOT / "README.md"):
        if command.line < block.line:
            workplace.check(command.argv, command.whole)
    monkeypatch.chdir(workplace.folder)
    names: dict[str, Any] = {}
    exec(block.text, names)
    held_out = torch.from_numpy(load_digits().images[1500:1502, None] / 8 - 1).float()
    assert names["latents"].shape == (len(held_out), DIM)
    torch.testing.assert_close(as_model_input(names["images"], (1, 8, 8)), held_out, rtol=0, atol=1 / 127)
    assert names["again"].shape == held_out.shape
    assert names["new"].images.shape == (16, 1, 8, 8)
    assert names["scores"].shape == (len(held_out),)
    assert (workplace.folder / "inverted" / "reconstructions.png").is_file()


@pytest.mark.parametrize("name", [*NAMES, "CHANGELOG.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    document = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
    for target in targets:
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_page_is_linked_from_the_readme_or_contributing() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert {"CONTRIBUTING.md", "CHANGELOG.md", *pages} <= set(re.findall(r"\]\(([^)#]+)", text))


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_every_cited_paper_is_in_the_references() -> None:
    references = (ROOT / "docs" / "references.md").read_text()
    listed = set(re.findall(r"\*\*([^*]+)\*\*", references))
    cited: dict[str, Path] = {}
    for path in CITED:
        # a citation may run over the end of a line
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text())
        cited.update({f"{authors} {year}": path for authors, year in CITATION.findall(text)})
    missing = {key: str(path) for key, path in cited.items() if key not in listed}
    assert not missing, "add them to docs/references.md"
    assert {"Chen et al. 2020", "Mu and Gilmer 2019"} <= set(cited)


@pytest.mark.slow
def test_the_readmes_own_images_example_trains(workplace: Workplace) -> None:
    """As written, but for smaller networks and fewer steps."""
    smaller = ["training.steps=2", "network.base_width=4", "latent.dim=8", "evaluation.images=4",
               "telemetry.tensorboard=false"]  # fmt: skip
    found = [command.argv for command in commands(ROOT / "README.md")]
    at_once, build, train = (
        argv for argv in found if argv[1:4] == ("shards", "build", "folder") or "run.dir=runs/photos" in " ".join(argv)
    )
    assert at_once[:3] == ("python", "recipes/pvdgan.py", "data.path=photos/")
    assert build[:3] == ("latentscale", "shards", "build")
    assert train[:2] == ("accelerate", "launch")
    # the photographs are 64 pixels high
    trained = workplace.output([*at_once, *smaller, "network.widths=[4,4,4,4]"])
    assert "trained pvdgan for 2 steps: runs/photos\n" in trained
    workplace.output(build)
    workplace.as_written = True
    trained = workplace.output([*train, *smaller, "network.widths=[4,4,4,4,4,4]"])
    assert "trained pvdgan for 2 steps: runs/photos256\n" in trained
    workplace.as_written = False
    workplace.output(["latentscale", "invert", "runs/photos256", "photo.jpg"])


@pytest.mark.slow
def test_the_example_of_another_size_trains(workplace: Workplace) -> None:
    smaller = ["training.steps=2", "network.widths=[4,4,4,4]", "network.base_width=4", "evaluation.images=4",
               "telemetry.tensorboard=false"]  # fmt: skip
    found = [command.argv for command in commands(ROOT / "docs" / "data.md")]
    (build,) = [argv for argv in found if argv[2:4] == ("build", "folder")]
    (train,) = [argv for argv in found if "network.widths=[64,128,256,512]" in argv]
    workplace.output(build)
    assert "trained pvdgan for 2 steps: runs/wider" in workplace.output([*train, *smaller])
