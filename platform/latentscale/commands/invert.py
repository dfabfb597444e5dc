"""``latentscale invert``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from latentscale.errors import UserError, interruptible_imports
from latentscale.local_paths import refuse_url
from latentscale.wording import counted, escaped

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor


class OnError(StrEnum):
    """What happens at an image that cannot be read."""

    FAIL = "fail"
    SKIP = "skip"


TABLE_ROWS = 40
NOTES_SHOWN = 10


def invert(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or its model/ folder.", readable=False)],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files, or folders to search for images.", readable=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; created if missing.", readable=False)] = Path(
        "inverted"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace existing results.")] = False,
    batch_images: Annotated[
        int,
        typer.Option(min=1, help="Number of images in one forward pass; lower it if memory runs out."),
    ] = 64,
    picture_images: Annotated[
        int, typer.Option(min=1, help="Draw at most this many images in reconstructions.png.")
    ] = 96,
    on_error: Annotated[
        OnError, typer.Option(help="fail ends at an image that cannot be read; skip leaves it out and names it.")
    ] = OnError.FAIL,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.")
    ] = None,
) -> None:
    """Map images to latents, and show how well the generator reconstructs them.

    [bold]Example[/bold]

      latentscale invert runs/pvdgan-afhq photo.jpg more-photos/ --out inverted

    The command fits each image to the model (rotates it as its EXIF says,
    converts it to grey or RGB, crops it to the centre, resizes it), encodes
    it and reconstructs it. It writes two files to the folder of --out:

    [bold]latents.npz[/bold] has one row per image:
      [cyan]latents[/cyan]         the encoder's output, z
      [cyan]scaled_latents[/cyan]  z times [cyan]scale[/cyan], the generator's input
      [cyan]names[/cyan]           the image files
      [cyan]psnr_db[/cyan]         PSNR of the reconstruction; higher is closer to the original
      [cyan]ood_score[/cyan]       out-of-distribution score; higher is less like the training
                      data. Compare it with the scores of in-distribution images.

    [bold]reconstructions.png[/bold] shows every original above its reconstruction.
    """
    with interruptible_imports():
        import numpy as np
        import torch
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress

        from latentscale.atomic import new_file
        from latentscale.evaluation.metrics.psnr import psnr_db, squared_error_per_image
        from latentscale.inversion.image_input import UnreadableImage, from_uint8, image_files, load_images
        from latentscale.inversion.inverter import Inverter
        from latentscale.pictures import draw_grid, paired_rows, save_png

    refuse_url(str(out), "--out ", "name a folder, and upload it afterwards")
    latents_path, picture_path = out / "latents.npz", out / "reconstructions.png"
    for path in (latents_path, picture_path):
        if path.exists() and not force:
            raise UserError(f"{path} exists: choose another folder with --out, or replace it with --force")
    inverter = Inverter.load(run, device, batch_images)
    inverter.model.require_encoder()
    files, notes = image_files(images)
    console, messages = Console(), Console(stderr=True)

    names: list[str] = []
    shown: list[tuple[Tensor, Tensor]] = []
    latents, errors = [], []
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task("inverting", total=len(files))
        for start in range(0, len(files), batch_images):
            # batch by batch, because a folder may not fit into memory
            part = files[start : start + batch_images]
            try:
                loaded = load_images(part, inverter.model.shape, skip_damaged=on_error is OnError.SKIP)
            except UnreadableImage as error:
                raise UserError(f"{error}, or leave it out with --on-error skip") from error
            notes += loaded.notes
            progress.advance(task, len(part))
            if not loaded.names:
                continue
            real = from_uint8(loaded.images)
            latent = inverter.encode(real)
            reconstructed = inverter.decode(latent)
            latents.append(latent)
            errors.append(squared_error_per_image(real, reconstructed))
            if len(names) < picture_images:
                shown.append((real, reconstructed))
            names += loaded.names

    if not names:
        raise UserError(f"none of {counted(len(files), 'image')} can be read: {notes[-1].removeprefix('left out: ')}")
    latent, psnr = torch.cat(latents), psnr_db(torch.cat(errors))
    scores = None if inverter.variance is None else inverter.ood_score_of_latents(latent)
    arrays = {
        "latents": latent.numpy(),
        "scaled_latents": inverter.model.scale_latent(latent).cpu().numpy(),
        "scale": inverter.scale.numpy(),
        "names": np.array(names),
        "psnr_db": psnr.numpy(),
    }
    if scores is not None:
        arrays["ood_score"] = scores.numpy()
    try:
        with new_file(latents_path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        real, reconstructed = (torch.cat(part)[:picture_images] for part in zip(*shown, strict=True))
        groups = paired_rows("original", real, "reconstructed", reconstructed, [Path(name).stem for name in names])
        picture = draw_grid(groups, "Originals and their reconstructions", inverter.model.method.name)
        save_png(picture, picture_path)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}): choose another folder with --out"
        ) from error

    _print_notes(messages, notes)
    _print_table(console, names, psnr, scores)
    console.print(escaped(f"latents: {latents_path}"), soft_wrap=True, markup=False, highlight=False)
    drawn = f" (the first {len(real)} of {len(names)} images)" if len(real) < len(names) else ""
    console.print(escaped(f"picture: {picture_path}{drawn}"), soft_wrap=True, markup=False, highlight=False)


def _print_notes(console: "Console", notes: list[str]) -> None:
    for note in notes[:NOTES_SHOWN]:
        console.print(escaped(f"note: {note}"), soft_wrap=True, markup=False, highlight=False)
    if len(notes) > NOTES_SHOWN:
        console.print(f"note: and {len(notes) - NOTES_SHOWN} more images were converted", highlight=False)


def _print_table(console: "Console", names: list[str], psnr: "Tensor", scores: "Tensor | None") -> None:
    with interruptible_imports():
        from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("PSNR dB", justify="right", no_wrap=True)
    if scores is not None:
        table.add_column("OOD score, nats", justify="right", no_wrap=True)
    columns = [psnr] if scores is None else [psnr, scores]
    for index, name in enumerate(names[:TABLE_ROWS]):
        table.add_row(_cell(name), *(f"{column[index]:.2f}" for column in columns))
    if len(names) > TABLE_ROWS:
        table.add_row(f"... {len(names) - TABLE_ROWS} more in latents.npz")
    if len(names) > 1:
        table.add_section()
        table.add_row("median", *(f"{column.quantile(0.5):.2f}" for column in columns), style="bold")
    console.print(table)


def _cell(text: str) -> str:
    """A user's text in a table: on one line, and without rich's markup."""
    return escape(escaped(text))
