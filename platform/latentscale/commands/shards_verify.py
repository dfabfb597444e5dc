"""``latentscale shards verify``."""

from typing import Annotated

import typer

from latentscale.commands.processors import processors
from latentscale.commands.progress_bar import progress_bar
from latentscale.commands.storage import options_for
from latentscale.wording import counted

LINES_SHOWN = 200


def verify(
    folder: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="A dataset, or the folder of its splits; s3://, gs://, http(s)://.")
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes; by default one a processor.", show_default=False),
    ] = None,
) -> None:
    """Check a dataset: files, checksums, tar headers against the index, labels, and that every image decodes.

    [bold]Examples[/bold]

      latentscale shards verify data/photos
      latentscale shards verify s3://bucket/photos

    Lists all that is broken, a line each with the shard and the member, and ends
    with exit status 2 if anything is. Of a URL every shard is read once, as it is
    there whatever this machine's cache holds, and nothing is kept.
    """
    from latentscale.shards.verifying import verify as verify_dataset

    with progress_bar() as report:
        verified = verify_dataset(folder, processors() if workers is None else workers, report, options_for(folder))
    for line in verified.broken[:LINES_SHOWN]:
        print(f"broken: {line}")
    if len(verified.broken) > LINES_SHOWN:
        print(f"broken: {len(verified.broken) - LINES_SHOWN} more")
    samples, shards = counted(verified.samples, "sample"), counted(verified.shards, "shard")
    looked_at = f"{samples} in {shards} of {counted(verified.datasets, 'dataset')}"
    if verified.broken:
        faults = counted(len(verified.broken), "fault")
        print(f"{folder}: {faults} in {looked_at}: copy what is named again, or build it again")
        raise typer.Exit(2)
    print(f"{folder}: {looked_at}, all intact")
