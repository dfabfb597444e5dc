"""``latentscale shards split``."""

from pathlib import Path
from typing import Annotated

import typer

from latentscale.commands.new_dataset import new_folder, shard_bytes
from latentscale.commands.storage import options_for
from latentscale.errors import UserError, interruptible_imports
from latentscale.progress_bar import progress_bar
from latentscale.wording import escaped


def split(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR|URL",
            help="A dataset, or the folder that holds its splits, which are then pooled; s3://, gs:// and http(s):// "
            "work too.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the new dataset; required.", readable=False)
    ] = None,
    folds: Annotated[int, typer.Option(min=0, metavar="K", help="Number of folds.")] = 0,
    fold: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="I",
            help="The fold that becomes the test split, from 0; the others become train.",
            show_default=False,
        ),
    ] = None,
    fractions: Annotated[
        str,
        typer.Option(metavar="A=X,B=Y,...", help="Splits and their fractions, e.g. train=0.8,val=0.1,test=0.1."),
    ] = "",
    test: Annotated[
        int, typer.Option(min=0, metavar="N", help="Size of the test split; all other samples become train.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random assignment.")] = 0,
    stratified: Annotated[
        bool, typer.Option("--stratified", help="Give every split the same proportions of labels.")
    ] = False,
    shard_size: Annotated[
        float, typer.Option(metavar="MB", min=0.001, help="Size of a shard, in units of 2^20 bytes.")
    ] = 256.0,
) -> None:
    """Split a dataset into folds, by fractions, or into train and test; samples are copied byte for byte.

    [bold]Examples[/bold]

      latentscale shards split data/mnist --out data/fold0 --folds 7 --fold 0
      latentscale shards split data/photos --out data/new --test 500 --stratified

    Which sample goes where depends only on the number of samples, the seed and
    the options. Patches of one image stay together; numbers then count images.
    If two splits hold the same samples (--split all), these are taken once.
    Every checksum is verified.
    """
    with interruptible_imports():
        from latentscale.shards.splitting import folds as folds_plan
        from latentscale.shards.splitting import fractions as fractions_plan
        from latentscale.shards.splitting import split_dataset

    out = new_folder(out)
    if sum(map(bool, (folds, fractions, test))) != 1:
        raise UserError("give one of --folds K --fold I, --fractions A=X,B=Y, or --test N")
    if bool(folds) != (fold is not None):
        raise UserError("--folds K and --fold I go together: give both")
    plan = test or (
        folds_plan(folds, fold, seed, stratified)
        if fold is not None
        else fractions_plan(_parse_fractions(fractions), seed, stratified)
    )
    with progress_bar() as report:
        counts = split_dataset(
            folder, out, plan, shard_bytes(shard_size), seed, stratified, report, options_for(folder)
        )
    print(escaped(f"{out}: {', '.join(f'{count} {name}' for name, count in counts.items())} samples"))


def _parse_fractions(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.strip().partition("=")
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not equals or not name.isidentifier() or name in shares or not 0 < value < float("inf"):
            raise UserError(f"--fractions {text} must be names and positive numbers, such as train=0.9,test=0.1")
        shares[name] = value
    return shares
