"""Draws the chips found in true colour, each with its place, date and similarity.

Reads the chips again from their `source_url`s. A chip that can't be read is drawn as a grey square with a
note.
"""

import io
import itertools
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
from clay_model.spec import MODELS, V0

SIDE = 192  # pixels along a chip's side in the picture
CAPTION = 34  # pixels below a chip for two lines of text
GAP = 8  # pixels between chips
ACROSS = 5  # chips in a row of the picture
READERS = 4  # chips fetched and decoded at once; each is 13.6 MB of float32


def picture_of(
    found: geopandas.GeoDataFrame, examples: geopandas.GeoDataFrame, options: S3Options | None = None
) -> tuple[bytes, list[str]]:
    """Return a PNG of the examples and the chips found; and why each chip missing from it can't be read."""
    groups = [list(frame.itertuples()) for frame in (examples, found)]
    rows = [group[at : at + ACROSS] for group in groups for at in range(0, len(group), ACROSS)]
    model = found.attrs.get("clay", {}).get("model", "")
    spec = next((spec for spec in MODELS if model.startswith(f"{spec.name}-")), V0)
    width = GAP + max(map(len, rows)) * (SIDE + GAP)
    picture = Image.new("RGB", (width, GAP + len(rows) * (SIDE + CAPTION + GAP)), "white")
    draw, font, missing = ImageDraw.Draw(picture), ImageFont.load_default(13), []
    with ThreadPoolExecutor(READERS) as pool:
        images = pool.map(lambda chip: _image_of(chip, spec, options), itertools.chain(*rows))
        for line, row in enumerate(rows):
            # `row` first: zip must not take an image for the next row.
            for column, (chip, image) in enumerate(zip(row, images, strict=False)):
                x, y = GAP + column * (SIDE + GAP), GAP + line * (SIDE + CAPTION + GAP)
                if isinstance(image, str):
                    missing.append(image)
                    draw.rectangle((x, y, x + SIDE, y + SIDE), "lightgrey")
                    draw.text((x + 8, y + SIDE // 2 - 8), "the chip can't be read", "black", font)
                else:
                    picture.paste(image, (x, y))
                draw.multiline_text((x, y + SIDE + 2), caption(chip), "black", font)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue(), missing


def true_colour(pixels: NDArray[np.float32], bands: tuple[str, ...]) -> Image.Image:
    """Return (bands, H, W) reflectance x 10,000 in true colour; a square root brightens dark land."""
    rgb = [bands.index(name) for name in ("B04", "B03", "B02")]
    colour = np.sqrt(np.clip(pixels[rgb] / WHITE, 0, 1)) * 255
    image = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)).astype(np.uint8))
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def caption(row: Any) -> str:  # noqa: ANN401 - pandas makes the class of a frame's rows
    """Return two lines: place; date, and similarity or role."""
    middle = middle_of(row.geometry)
    north, east = "N" if middle.y >= 0 else "S", "E" if middle.x >= 0 else "W"
    found = hasattr(row, "similarity")
    role = f"{row.similarity:.3f}" if found else "example" if row.wanted else "to avoid"
    return f"{abs(middle.y):.3f}° {north} {abs(middle.x):.3f}° {east}\n{row.date}  {role}"


def _image_of(row: Any, spec: ModelSpec, options: S3Options | None) -> Image.Image | str:  # noqa: ANN401 - as above
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
