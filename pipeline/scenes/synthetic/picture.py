"""A picture of input, bicubic, result and truth side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from difffusr.kernels.bands import BANDS, RGB, SCALE
from difffusr.pipeline.scenes.synthetic.palette import Float


def before_after_picture(
    path: Path | str,
    low: Float,
    super_resolved: Float,
    truth: Float | None = None,
    bicubic: Float | None = None,
    panel_px: int = 480,
) -> Path:
    """Draw a labelled PNG: a row in natural colour, a row in false colour, the same stretch across each row.

    low: (12, h, w) reflectance at 10 m in BANDS order. super_resolved, and truth and bicubic where given: (12, 4h,
    4w) at 2.5 m. bicubic is computed from low where it is not given; without truth its panel is left out.
    panel_px: about the side of a panel, rounded to whole pixels of the image.
    """
    fine_shape = (12, low.shape[1] * SCALE, low.shape[2] * SCALE)
    for name, image in (("super_resolved", super_resolved), ("truth", truth), ("bicubic", bicubic)):
        if image is not None and image.shape != fine_shape:
            raise ValueError(f"{name} must have shape {fine_shape} beside 10 m pixels {low.shape}, not {image.shape}")
    panels = {"Sentinel-2, 10 m": low.repeat(SCALE, 1).repeat(SCALE, 2)}
    panels["Bicubic, 2.5 m"] = _bicubic(low) if bicubic is None else bicubic
    panels["DiffFuSR, 2.5 m"] = super_resolved
    if truth is not None:
        panels["Truth, 2.5 m"] = truth
    zoom = max(1, round(panel_px / max(fine_shape[1:])))
    height, width = fine_shape[1] * zoom, fine_shape[2] * zoom
    margin, gap, head, side = 20, 10, 40, 30
    sheet = Image.new(
        "RGB", (2 * margin + side + len(panels) * (width + gap) - gap, 2 * margin + head + 2 * height + gap), "white"
    )
    pen = ImageDraw.Draw(sheet)
    heading, small = ImageFont.load_default(22), ImageFont.load_default(18)
    for row, (style, names) in enumerate((("Natural colour", RGB), ("False colour", ("B08", "B04", "B03")))):
        top = margin + head + row * (height + gap)
        index = [BANDS.index(name) for name in names]
        reference = super_resolved if truth is None else truth
        limits = _stretch(reference[index], together=names == RGB)
        _write_upwards(sheet, f"{style} ({', '.join(names)})", (margin - 4, top, height), small)
        for column, image in enumerate(panels.values()):
            picture = Image.fromarray(_to_rgb(image[index], limits))
            left = margin + side + column * (width + gap)
            sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
    for column, name in enumerate(panels):
        middle = margin + side + column * (width + gap) + width / 2
        pen.text((middle, margin + head / 2 - 4), name, fill=(30, 30, 30), font=heading, anchor="mm")
    sheet.save(path)
    return Path(path)


def _stretch(image: Float, together: bool) -> tuple[Float, Float]:
    """Reflectance shown black and white, (3, 1, 1) each: by band, or together so that natural colours stay true."""
    black, white = np.percentile(image.reshape(len(image), -1), (0.5, 99.3), axis=1).astype(np.float32)
    if together:
        black, white = np.full_like(black, 0.6 * black.min()), np.full_like(white, white.max())
    return black[:, None, None], white[:, None, None]


def _to_rgb(image: Float, limits: tuple[Float, Float]) -> NDArray[np.uint8]:
    black, white = limits
    grey = np.clip((image - black) / np.maximum(white - black, 1e-4), 0, 1) ** (1 / 1.5)
    return np.ascontiguousarray(np.rint(grey * 255).astype(np.uint8).transpose(1, 2, 0))


def _bicubic(low: Float) -> Float:
    size = (low.shape[2] * SCALE, low.shape[1] * SCALE)
    bands = [Image.fromarray(band.astype(np.float32)).resize(size, Image.Resampling.BICUBIC) for band in low]
    return np.stack([np.asarray(band, np.float32) for band in bands])


def _write_upwards(sheet: Image.Image, text: str, place: tuple[int, int, int], font: Any) -> None:
    """Write a text turned by 90° left of (x), centred between top and top + height."""
    left, top, height = place
    box = font.getbbox(text)
    label = Image.new("RGB", (int(box[2]) + 4, int(box[3]) + 6), "white")
    ImageDraw.Draw(label).text((2, 0), text, fill=(30, 30, 30), font=font)
    turned = label.rotate(90, expand=True)
    sheet.paste(turned, (left, top + (height - turned.height) // 2))
