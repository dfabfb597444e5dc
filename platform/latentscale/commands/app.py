"""The command line ``latentscale``: its commands and its handling of user errors."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from latentscale.commands.invert import invert
from latentscale.commands.methods import methods
from latentscale.commands.shards import shards
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
app.command(no_args_is_help=True)(invert)
app.add_typer(shards, name="shards")


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
    """Build datasets for invertible GANs, and use the GANs that latentscale has trained.

    Each method is trained by its own script, such as
    [bold]python recipes/pvdgan.py[/bold].
    """


def main() -> None:
    """Run the command line; a user error ends with one line on stderr and exit status 2."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
