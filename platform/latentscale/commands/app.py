"""The command line ``latentscale``: its commands and its handling of user errors.

``latentscale --help`` imports none of the commands' modules, whose options take longer to declare than the list of
commands takes to print.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from latentscale.errors import UserError, interruptible_imports, system_error
from latentscale.local_paths import expanded_arguments


@dataclass(frozen=True)
class DeferredCommand:
    """A command whose module is imported when it is used.

    Its name is that of the module in latentscale.commands, and of the function or typer.Typer there.

    Attributes:
        summary: the first line of its help.
        needs_arguments: without any, it prints its help.
    """

    summary: str
    needs_arguments: bool = True

    def load(self, name: str) -> Any:
        """The command, with its options and its own help."""
        with interruptible_imports():
            command = getattr(import_module(f"latentscale.commands.{name}"), name)
        if isinstance(command, typer.Typer):
            return get_command(command)
        alone = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
        alone.command(name, no_args_is_help=self.needs_arguments)(command)
        return get_command(alone)


COMMANDS = {
    "methods": DeferredCommand("List the methods with their paper, requirements and capabilities.", False),
    "metrics": DeferredCommand(
        "List the metrics: what each tells, what it needs, its unit and which values are good.", False
    ),
    "invert": DeferredCommand("Map images to latents, and show how well the generator reconstructs them."),
    "shards": DeferredCommand("Build datasets of WebDataset shards from images; verify, show and split them."),
}


class Commands(TyperGroup):
    """Lists the commands by their summaries, and imports the one that is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the arguments name, and the arguments after it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, COMMANDS[name].load(name) if name in COMMANDS else command, rest


app = typer.Typer(
    name="latentscale",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.summary)(lambda: None)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context) -> None:
    """Train a model with one of the recipes, or continue a run."""
    with interruptible_imports():
        from latentscale.commands.train import train_recipe

    train_recipe(context.args)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"latentscale {version('latentscale')}")
        raise typer.Exit


@app.callback()
def latentscale(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Build datasets for invertible GANs, train the GANs, and use them.

    [bold]latentscale train pvdgan[/bold] does the same as [bold]python recipes/pvdgan.py[/bold] in a clone.
    """


def main() -> None:
    """Run the command line; a user error ends with one line on stderr and exit status 2."""
    try:
        app(expanded_arguments(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {system_error(error, 'run the same command again')}", file=sys.stderr)
        sys.exit(2)
