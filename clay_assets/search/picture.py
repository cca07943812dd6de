"""Draws the chips found in true colour, each with its place, date and similarity.

Reads the chips again from their `source_url`s. A chip that can't be read is drawn as a grey square with a
note.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clay_assets.chips import ChipRejected, read_chip
from clay_assets.results.picture import WHITE
from clay_assets.search.examples import middle_of
from clay_assets.storage import S3Options, StorageError, Store
from clay_model.model_spec import ModelSpec
from clay_model.spec import BANDS, MODELS, V0

SIDE = 192
"""Pixels along a chip's side in the picture."""

CAPTION = 34
"""Pixels below a chip for two lines of text."""

GAP = 8
ACROSS = 5
"""Chips in a row of the picture."""

READERS = 4
"""Chips fetched and decoded at once; each is 13.6 MB of float32."""


def picture_of(
    found: geopandas.GeoDataFrame, examples: geopandas.GeoDataFrame, options: S3Options | None = None
) -> tuple[bytes, list[str]]:
    """Draw the examples in the first row and the rows found below.

    Args:
        found: As `similar` returns it.
        examples: As `search` returns it.
        options: How to reach chips on S3.

    Returns:
        A PNG, and why each chip that is missing from it could not be read.
    """
    chips = [*examples.itertuples(), *found.itertuples()]
    model = found.attrs.get("clay", {}).get("model", "")
    spec = next((spec for spec in MODELS if model.startswith(f"{spec.name}-")), V0)
    with ThreadPoolExecutor(READERS) as pool:
        drawn = list(pool.map(lambda chip: _true_colour(chip, spec, options), chips))
    # The examples begin a row, and so do the rows found.
    starts = [*range(0, len(examples), ACROSS), *range(len(examples), len(chips), ACROSS)]
    rows = [range(at, end) for at, end in zip(starts, [*starts[1:], len(chips)], strict=True)]
    width = GAP + max(map(len, rows)) * (SIDE + GAP)
    picture = Image.new("RGB", (width, GAP + len(rows) * (SIDE + CAPTION + GAP)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for line, row in enumerate(rows):
        for column, index in enumerate(row):
            x, y = GAP + column * (SIDE + GAP), GAP + line * (SIDE + CAPTION + GAP)
            image = drawn[index]
            if isinstance(image, str):
                draw.rectangle((x, y, x + SIDE, y + SIDE), "lightgrey")
                draw.text((x + 8, y + SIDE // 2 - 8), "the chip can't be read", "black", font)
            else:
                picture.paste(Image.fromarray(image), (x, y))
            draw.multiline_text((x, y + SIDE + 2), caption(chips[index]), "black", font)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue(), [reason for reason in drawn if isinstance(reason, str)]


def true_colour(
    pixels: NDArray[np.float32], bands: tuple[str, ...] = BANDS, side: int = SIDE
) -> NDArray[np.uint8]:
    """Return a chip in true colour; a square root brightens dark land.

    Args:
        pixels: (bands, H, W), reflectance x 10,000.
        bands: Their names, including B02, B03 and B04.
        side: Pixels along the picture's side.

    Returns:
        (side, side, 3).
    """
    rgb = [bands.index(name) for name in ("B04", "B03", "B02")]
    colour = np.sqrt(np.clip(pixels[rgb] / WHITE, 0, 1)) * 255
    image = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)).astype(np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def caption(row: Any) -> str:  # noqa: ANN401 - pandas makes the class of a frame's rows
    """Return two lines: place; date, and similarity or role."""
    middle = middle_of(row.geometry)
    north, east = "N" if middle.y >= 0 else "S", "E" if middle.x >= 0 else "W"
    found = hasattr(row, "similarity")
    role = f"{row.similarity:.3f}" if found else "example" if row.wanted else "to avoid"
    return f"{abs(middle.y):.3f}° {north} {abs(middle.x):.3f}° {east}\n{row.date}  {role}"


def _true_colour(row: Any, spec: ModelSpec, options: S3Options | None) -> NDArray[np.uint8] | str:  # noqa: ANN401 - as above
    """Return the picture of a chip, or of the window that the row describes; or why there is none."""
    folder, _, name = row.source_url.rpartition("/")
    try:
        chip = read_chip(Store(folder, options).read(name), name, spec=spec)
    except (StorageError, ChipRejected) as error:
        return f"{row.source_url}: {error}"
    middle = middle_of(row.geometry)
    distances = [middle.distance(shapely.Point(window.lonlat)) for window in chip.windows]
    across = math.isqrt(len(chip.windows))
    side = chip.pixels.shape[1] // across
    top, left = (side * part for part in divmod(int(np.argmin(distances)), across))
    return true_colour(chip.pixels[:, top : top + side, left : left + side], spec.bands)
