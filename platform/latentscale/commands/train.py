"""``latentscale train``: the recipes, from an installed package.

Nothing here imports the command-line library: a recipe's own help and refusals are not slower for it.
"""

import importlib.util
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from latentscale.errors import UserError, interruptible_imports
from latentscale.package_data import data_folder

USAGE = """\
usage: latentscale train RECIPE [--dry-run] [preset=NAME] [key=value …]

Train a model with one of the recipes. `latentscale train RECIPE --help` lists its settings.

recipes: {recipes}
`latentscale methods` says what each of them needs and gives.

Several processes: accelerate launch --multi_gpu --num_processes N -m latentscale train RECIPE …
               or: torchrun --nproc_per_node N -m latentscale train RECIPE …
"""


def train_recipe(arguments: Sequence[str]) -> None:
    """Do what the recipe's script does, with the arguments after its name.

    Args:
        arguments: a recipe's name and its own arguments, or ``--help``.

    Exits with status 2 and one line when the user can fix what is wrong, as the script does.
    """
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(USAGE.format(recipes=" ".join(recipe_names())), end="")
        sys.exit(0 if arguments else 2)
    with interruptible_imports():
        from latentscale.recipe import Launch, fail, run

    try:
        recipe = load_recipe(name)
    except UserError as error:
        fail(error.on_every_process())
    launch = Launch(f"latentscale train {name}", f"-m latentscale train {name}", data_folder("recipes") / "presets")
    run(recipe.METHOD, recipe.DEFAULTS, launch, arguments[1:])


def recipe_names() -> list[str]:
    """The recipes that can be trained, in alphabetical order."""
    return sorted(path.stem for path in data_folder("recipes").glob("*.py"))


def load_recipe(name: str) -> ModuleType:
    """Import a recipe's script.

    Raises:
        UserError: when there is no recipe of this name.
    """
    names = recipe_names()
    if name not in names:
        near = get_close_matches(Path(name).stem, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
        raise UserError(f"latentscale train: there is no recipe '{name}': {hint}")
    spec = importlib.util.spec_from_file_location(f"latentscale_recipe_{name}", data_folder("recipes") / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe
