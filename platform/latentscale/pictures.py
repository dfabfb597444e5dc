"""Labelled grids of images and labelled scatter plots, as PNG files.

Labels are drawn in Pillow's built-in font, which has few characters beyond ASCII.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentscale.atomic import new_file

BACKGROUND = (255, 255, 255)
TEXT_COLOUR = (38, 38, 42)
FAINT_TEXT_COLOUR = (120, 120, 128)
FRAME_COLOUR = (214, 214, 220)
NON_FINITE_COLOUR = (255, 0, 255)
"""Magenta for NaN and infinite values, which would otherwise be mistaken for black pixels."""
COLOURS = (
    (120, 124, 134), (214, 84, 28), (24, 108, 190), (30, 140, 84), (152, 72, 180), (232, 170, 20), (0, 160, 170),
    (196, 40, 100), (110, 80, 40), (130, 190, 40), (40, 40, 110), (240, 130, 160), (90, 200, 240), (100, 20, 30),
    (180, 140, 220), (20, 90, 60), (250, 100, 90),
)  # fmt: skip
"""Grey, and sixteen colours that tell categories apart."""

MIN_IMAGE_SIDE_PIXELS = 64
GRID_WIDTH_PIXELS = 1100
MARGIN = 18
GAP = 3
GROUP_GAP = 18
TITLE_SIZE, LABEL_SIZE, CAPTION_SIZE = 16, 13, 11


@dataclass(frozen=True)
class Row:
    """One row of a grid: a label for the left margin and images ``[k, C, H, W]`` in [-1, 1]."""

    label: str
    images: Tensor


@dataclass(frozen=True)
class RowGroup:
    """Rows that are drawn close together; ``captions`` are drawn above the columns, one for each, or none."""

    rows: Sequence[Row]
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class PointCloud:
    """One series of a scatter plot: a label for the legend and points ``[n, 2]``."""

    label: str
    points: Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8 in [0, 255]: clip, (x + 1) · 127.5, round."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def magnification(height: int, width: int) -> int:
    """The smallest integer factor that makes an image's longer side at least MIN_IMAGE_SIDE_PIXELS."""
    return max(1, math.ceil(MIN_IMAGE_SIDE_PIXELS / max(height, width)))


def columns_that_fit(height: int, width: int) -> int:
    """How many magnified images fit into a row of about GRID_WIDTH_PIXELS: from 2 to 12."""
    return max(2, min(12, GRID_WIDTH_PIXELS // (width * magnification(height, width))))


def paired_rows(
    upper_label: str, upper: Tensor, lower_label: str, lower: Tensor, captions: Sequence[str] = ()
) -> list[RowGroup]:
    """Pairs of rows that show every image of ``upper`` above its counterpart in ``lower``.

    Args:
        upper_label, lower_label: labels of the rows.
        upper, lower: ``[n, C, H, W]`` in [-1, 1].
        captions: n captions above the pairs, or none.
    """
    columns = columns_that_fit(*upper.shape[-2:])
    groups = []
    for start in range(0, len(upper), columns):
        part = slice(start, start + columns)
        groups.append(RowGroup([Row(upper_label, upper[part]), Row(lower_label, lower[part])], captions[part]))
    return groups


def draw_grid(groups: Sequence[RowGroup], title: str, subtitle: str = "") -> Image.Image:
    """Draw labelled rows of images, magnified by an integer factor without smoothing.

    Images with 1 or 2 channels are drawn grey from the first channel, others as RGB from the first three. NaN and
    infinite values are magenta.

    Args:
        groups: at least one, with at least one row; all images have the same size.
        title, subtitle: the lines at the top; an empty subtitle is left out.
    """
    height, width = groups[0].rows[0].images.shape[-2:]
    factor = magnification(height, width)
    cell_height, cell_width = height * factor, width * factor
    columns = max(len(row.images) for group in groups for row in group.rows)
    label_font, caption_font = _font(LABEL_SIZE), _font(CAPTION_SIZE)
    label_width = max(math.ceil(label_font.getlength(_ascii(row.label))) for group in groups for row in group.rows)
    left = MARGIN + (label_width + 12 if label_width else 0)
    heading = _heading_height(subtitle)
    caption_height = CAPTION_SIZE + 7
    canvas_height = heading + MARGIN + GROUP_GAP * (len(groups) - 1)
    for group in groups:
        canvas_height += (cell_height + GAP) * len(group.rows) - GAP + (caption_height if group.captions else 0)
    canvas_width = left + (cell_width + GAP) * columns - GAP + MARGIN
    canvas = Image.new("RGB", (max(canvas_width, _heading_width(title, subtitle)), canvas_height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    _draw_heading(draw, title, subtitle)
    top = heading
    for group in groups:
        if group.captions:
            for column, caption in enumerate(group.captions):
                text = _truncated(_ascii(caption), caption_font, cell_width)
                centre = left + column * (cell_width + GAP) + cell_width / 2
                draw.text((centre, top + caption_height - 4), text, FAINT_TEXT_COLOUR, caption_font, anchor="ms")
            top += caption_height
        for row in group.rows:
            draw.text(
                (left - 12, top + cell_height / 2),
                _ascii(row.label),
                TEXT_COLOUR,
                label_font,
                anchor="rm",
                align="right",
            )
            for column, pixels in enumerate(_pixels(row.images)):
                cell = Image.fromarray(pixels).resize((cell_width, cell_height), Image.Resampling.NEAREST)
                canvas.paste(cell, (left + column * (cell_width + GAP), top))
            top += cell_height + GAP
        top += GROUP_GAP - GAP
    return canvas


def draw_scatter(
    clouds: Sequence[PointCloud],
    title: str,
    subtitle: str = "",
    connected: Sequence[tuple[int, int]] = (),
    side_pixels: int = 560,
) -> Image.Image:
    """Draw points with equal axes and a legend. The first cloud sets the axes' limits, with a margin of a quarter.

    Points that are not finite or outside the limits are left out and counted in the legend.

    Args:
        clouds: at least one; later ones are drawn over earlier ones.
        title, subtitle: the lines at the top; an empty subtitle is left out.
        connected: pairs of clouds' indices; thin lines connect their points one to one.
        side_pixels: height and width of the plot.
    """
    # drawn at twice the size and reduced, for smooth edges
    supersampling = 2
    side = side_pixels * supersampling
    plot = Image.new("RGB", (side, side), BACKGROUND)
    draw = ImageDraw.Draw(plot)
    points = [cloud.points.detach().double().cpu().numpy()[:, :2] for cloud in clouds]
    low, high = _limits(points[0])
    relative = [(values - low) / (high - low) for values in points]
    shown = [np.isfinite(place).all(1) & (place >= 0).all(1) & (place <= 1).all(1) for place in relative]
    # the second coordinate grows upwards, pixel rows downwards
    pixels = [np.stack([place[:, 0], 1.0 - place[:, 1]], axis=1) * side for place in relative]
    for first, second in connected:
        for point in np.flatnonzero(shown[first] & shown[second]):
            draw.line((*pixels[first][point], *pixels[second][point]), FRAME_COLOUR, supersampling)
    radius = 2.2 * supersampling
    for index, centres in enumerate(pixels):
        for x, y in centres[shown[index]]:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), COLOURS[index % len(COLOURS)])
    plot = plot.resize((side_pixels, side_pixels), Image.Resampling.LANCZOS)

    legend_height, axis_height = (LABEL_SIZE + 8) * len(clouds), CAPTION_SIZE + 8
    heading = _heading_height(subtitle)
    left = MARGIN + 34
    size = (
        max(left + side_pixels + MARGIN, _heading_width(title, subtitle)),
        heading + legend_height + side_pixels + axis_height + MARGIN,
    )
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    _draw_heading(draw, title, subtitle)
    for index, cloud in enumerate(clouds):
        y = heading + index * (LABEL_SIZE + 8) + LABEL_SIZE / 2
        draw.ellipse((left, y - 4, left + 8, y + 4), COLOURS[index % len(COLOURS)])
        outside = int((~shown[index]).sum())
        text = f"{cloud.label} ({len(cloud.points)} points" + (f", {outside} outside)" if outside else ")")
        draw.text((left + 16, y), _ascii(text), TEXT_COLOUR, _font(LABEL_SIZE), anchor="lm")
    top = heading + legend_height
    canvas.paste(plot, (left, top))
    draw.rectangle((left, top, left + side_pixels, top + side_pixels), outline=FRAME_COLOUR)
    font = _font(CAPTION_SIZE)
    for position, anchor_x, anchor_y in ((0.0, "l", "d"), (0.5, "m", "m"), (1.0, "r", "a")):
        x_text, y_text = (f"{low[axis] + position * (high[axis] - low[axis]):.2f}" for axis in (0, 1))
        x, y = left + position * side_pixels, top + (1 - position) * side_pixels
        draw.text((x, top + side_pixels + 5), x_text, FAINT_TEXT_COLOUR, font, anchor=anchor_x + "a")
        draw.text((left - 6, y), y_text, FAINT_TEXT_COLOUR, font, anchor="r" + anchor_y)
    return canvas


def join_panels(panels: Sequence[Image.Image], columns: int, title: str) -> Image.Image:
    """Finished pictures under one title, in rows of ``columns`` that are aligned at the bottom."""
    columns = min(columns, len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = max(sum(panel.width for panel in row) for row in rows)
    heading = _heading_height("")
    canvas = Image.new("RGB", (width, heading + sum(max(panel.height for panel in row) for row in rows)), BACKGROUND)
    _draw_heading(ImageDraw.Draw(canvas), title, "")
    top = heading
    for row in rows:
        left, top = 0, top + max(panel.height for panel in row)
        for panel in row:
            canvas.paste(panel, (left, top - panel.height))
            left += panel.width
    return canvas


def save_png(image: Image.Image, path: Path) -> Path:
    """Write a PNG file atomically; returns the path."""
    with new_file(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


def _truncated(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_pixels: int) -> str:
    if font.getlength(text) <= width_pixels:
        return text
    while text and font.getlength(text + "...") > width_pixels:
        text = text[:-1]
    return text + "..."


def _heading_height(subtitle: str) -> int:
    return MARGIN + TITLE_SIZE + (LABEL_SIZE + 7 if subtitle else 0) + 14


def _heading_width(title: str, subtitle: str) -> int:
    longest = max(_font(TITLE_SIZE).getlength(_ascii(title)), _font(LABEL_SIZE).getlength(_ascii(subtitle)))
    return math.ceil(longest) + 2 * MARGIN


def _draw_heading(draw: ImageDraw.ImageDraw, title: str, subtitle: str) -> None:
    draw.text((MARGIN, MARGIN), _ascii(title), TEXT_COLOUR, _font(TITLE_SIZE), anchor="la")
    if subtitle:
        draw.text(
            (MARGIN, MARGIN + TITLE_SIZE + 6), _ascii(subtitle), FAINT_TEXT_COLOUR, _font(LABEL_SIZE), anchor="la"
        )


def _pixels(images: Tensor) -> np.ndarray:
    """Images ``[k, C, H, W]`` in [-1, 1] to uint8 RGB ``[k, H, W, 3]``."""
    images = images.detach().cpu()
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    non_finite = ~torch.isfinite(images).all(dim=1)
    pixels = to_uint8(torch.nan_to_num(images)).permute(0, 2, 3, 1).numpy().copy()
    pixels[non_finite.numpy()] = NON_FINITE_COLOUR
    return pixels


def _limits(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    finite = points[np.isfinite(points).all(1)]
    if len(finite) == 0:
        return np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    middle = (finite.max(0) + finite.min(0)) / 2
    half = max(float((finite.max(0) - finite.min(0)).max()) / 2 * 1.25, 1e-6)
    return middle - half, middle + half
