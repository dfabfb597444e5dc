"""``latentscale shards verify``."""

from typing import Annotated

import typer

from latentscale.commands.storage import options_for
from latentscale.errors import interruptible_imports
from latentscale.processors import processors
from latentscale.progress_bar import progress_bar
from latentscale.wording import counted, escaped

LINES_SHOWN = 200


def verify(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR|URL",
            help="A dataset, or the folder that holds its splits; s3://, gs:// and http(s):// work too.",
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1024,
            metavar="PROCESSES",
            help="Worker processes; 0 does all work in the main process.",
            show_default="one per CPU",
        ),
    ] = None,
) -> None:
    """Verify a dataset: files, checksums, tar headers against the index, labels, and that every image decodes.

    [bold]Examples[/bold]

      latentscale shards verify data/photos
      latentscale shards verify s3://bucket/photos

    Every fault is printed in a line that names the shard and the file in it. The
    exit status is 2 if there is any. From a URL every shard is downloaded once;
    the local cache is neither read nor written.
    """
    with interruptible_imports():
        from latentscale.shards.verifying import verify as verify_dataset

    with progress_bar() as report:
        verified = verify_dataset(folder, processors() if workers is None else workers, report, options_for(folder))
    for line in verified.broken[:LINES_SHOWN]:
        print(escaped(f"broken: {line}"))
    if len(verified.broken) > LINES_SHOWN:
        print(f"broken: {len(verified.broken) - LINES_SHOWN} more")
    samples, shards = counted(verified.samples, "sample"), counted(verified.shards, "shard")
    checked = f"{samples} in {shards} of {counted(verified.datasets, 'dataset')}"
    if verified.broken:
        faults = counted(len(verified.broken), "fault")
        print(f"{escaped(folder)}: {faults} in {checked}: copy the named files again, or rebuild the dataset")
        raise typer.Exit(2)
    print(f"{escaped(folder)}: {checked}, all intact")
