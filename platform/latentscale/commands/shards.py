"""``latentscale shards``: datasets made, checked, shown and cut."""

import typer

from latentscale.commands.shards_build import HELP as BUILD_HELP
from latentscale.commands.shards_build import build
from latentscale.commands.shards_info import info
from latentscale.commands.shards_split import split
from latentscale.commands.shards_verify import verify

shards = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make datasets of WebDataset shards out of images, and check, show and split them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
shards.command(no_args_is_help=True, help=BUILD_HELP)(build)
shards.command(no_args_is_help=True)(verify)
shards.command(no_args_is_help=True)(info)
shards.command(no_args_is_help=True)(split)
