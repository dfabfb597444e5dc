"""The command line ``latentscale``: its commands and its handling of user errors."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from latentscale.commands.invert import invert
from latentscale.commands.methods import methods
from latentscale.commands.metrics import metrics
from latentscale.commands.shards import shards
from latentscale.commands.train import train_recipe
from latentscale.errors import UserError

app = typer.Typer(
    name="latentscale",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(methods)
app.command()(metrics)
app.command(no_args_is_help=True)(invert)
app.add_typer(shards, name="shards")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context) -> None:
    """Train a model with one of the recipes, or continue a run."""
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
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
