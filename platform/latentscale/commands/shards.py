"""``latentscale shards``: build, verify, show and split datasets."""

import typer

from latentscale.commands.shards_build import HELP as BUILD_HELP
from latentscale.commands.shards_build import build
from latentscale.commands.shards_info import info
from latentscale.commands.shards_split import split
from latentscale.commands.shards_verify import verify

shards = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build datasets of WebDataset shards from images; verify, show and split them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
shards.command(no_args_is_help=True, help=BUILD_HELP)(build)
shards.command(no_args_is_help=True)(verify)
shards.command(no_args_is_help=True)(info)
shards.command(no_args_is_help=True)(split)
