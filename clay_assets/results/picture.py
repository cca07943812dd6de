"""A small picture of a tile: its chips in true colour next to the principal components of their embeddings.

The right half shows the first three principal components of the tile's vectors as red, green and blue. Where
the vectors follow the land, the two halves show the same shapes. Made from thumbnails kept while embedding;
below 30 kB, because the event log stores it for every tile.
"""

import base64
import datetime
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from clay_assets.results.outcomes import THUMBNAIL_SIZE
from clay_model.spec import BANDS

WHITE = 3_000.0  # reflectance x 10,000 shown as white: bright soil; snow and cloud saturate
MAX_BYTES = 30_000  # of the picture in the event log, base64 included
GAP = 8  # pixels between the two halves
MAX_CHIPS_ACROSS = 48  # or windows along a side; a tile has 22 chips of 512 pixels, 44 windows of 256
CAPTION = (
    "Left: true colour. Right: the embeddings' first three principal components as red, green and blue;"
    " chips of similar colour have similar embeddings."
)

_RGB = [BANDS.index(name) for name in ("B04", "B03", "B02")]


def chip_thumbnail(pixels: NDArray[Any]) -> bytes:
    """Return a window in true colour: RGB bytes row by row, `THUMBNAIL_SIZE` pixels square.

    Args:
        pixels: (bands, side, side), the optical bands first in the order of `BANDS`, physical units; side is
            a multiple of 16.
    """
    # 8 x 8 pixels of each block suffice: every fourth pixel of 512 each way costs a sixteenth of all.
    step = max(1, pixels.shape[1] // (8 * THUMBNAIL_SIZE))
    sample = pixels[_RGB, ::step, ::step]
    side = sample.shape[1] // THUMBNAIL_SIZE
    blocks = sample.reshape(3, THUMBNAIL_SIZE, side, THUMBNAIL_SIZE, side).mean(axis=(2, 4))
    colour = np.sqrt(np.clip(blocks / WHITE, 0, 1)) * 255  # a square root lifts dark land
    return colour.transpose(1, 2, 0).astype(np.uint8).tobytes()


def principal_colours(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the first three principal components of (N, D) vectors as (N, 3) bytes.

    Each component is stretched from its 2nd to its 98th percentile. Fewer than three vectors, which have no
    three components, are grey.
    """
    if len(vectors) < 3:
        return np.full((len(vectors), 3), 128, dtype=np.uint8)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    # From the smaller of the two matrices of products: a singular value decomposition of three dates' vectors
    # takes 3 s, and the next tile would wait for it.
    if len(centred) > centred.shape[1]:
        components = centred @ np.linalg.eigh(centred.T @ centred).eigenvectors[:, :-4:-1]
    else:
        squares, directions = np.linalg.eigh(centred @ centred.T)
        components = (directions * np.sqrt(np.maximum(squares, 0)))[:, :-4:-1]
    # The sign of a component is arbitrary: fix it, so that the same vectors give the same picture.
    largest = components[np.abs(components).argmax(axis=0), range(components.shape[1])]
    components *= np.where(largest < 0, -1, 1)
    low, high = np.percentile(components, (2, 98), axis=0)
    stretched = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    return (30 + 215 * stretched).astype(np.uint8)


def tile_picture(
    footprints: Sequence[bytes],
    dates: Sequence[datetime.date],
    vectors: NDArray[np.float32],
    thumbnails: Sequence[bytes],
) -> str:
    """Draw a tile as a Markdown image for the Dagster UI, at most `MAX_BYTES` long; "" without chips.

    Args:
        footprints: N WKB polygons in OGC:CRS84.
        dates: N acquisition dates; where chips overlap, the latest is on top.
        vectors: (N, D), one a chip.
        thumbnails: N of `chip_thumbnail`.
    """
    if not len(vectors):
        return ""
    rows, columns = _layout(footprints)
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    # A few chips are shown larger, up to eight times.
    size = THUMBNAIL_SIZE * max(1, min(8, 352 // (THUMBNAIL_SIZE * max(height, width))))
    halves = np.full((2, height, width, size, size, 3), 255, dtype=np.uint8)  # white where there is no chip
    colours = principal_colours(vectors)
    for index in sorted(range(len(dates)), key=lambda index: dates[index]):
        place = rows[index], columns[index]
        seen = Image.frombytes("RGB", (THUMBNAIL_SIZE, THUMBNAIL_SIZE), thumbnails[index])
        halves[0][place] = np.asarray(seen.resize((size, size), Image.Resampling.BICUBIC))
        halves[1][place] = colours[index]
    left, right = halves.swapaxes(2, 3).reshape(2, height * size, width * size, 3)
    gap = np.full((height * size, GAP, 3), 255, dtype=np.uint8)
    return _as_markdown(Image.fromarray(np.concatenate([left, gap, right], axis=1)))


def _as_markdown(picture: Image.Image) -> str:
    """Compress a picture until it fits, as an image within Markdown."""
    for quality in (85, 70, 50, 30, 15):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        markdown = f"![the tile](data:image/jpeg;base64,{data})\n\n{CAPTION}"
        if len(markdown) <= MAX_BYTES:
            return markdown
    return _as_markdown(picture.resize((picture.width // 2, picture.height // 2)))


def _layout(footprints: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of each chip, north up, counted along the chips' own edges."""
    corners = _on_the_ground(shapely.get_coordinates(shapely.from_wkb(list(footprints))))
    corners = corners.reshape(len(footprints), 5, 2)  # south-east, north-east, north-west, south-west, again
    edges = np.median([corners[:, 0] - corners[:, 3], corners[:, 2] - corners[:, 3]], axis=1)  # east, north
    offsets = corners[:, 3] - corners[0, 3]
    # Least squares: edges of almost no length (an odd chip alone in its tile) have no inverse.
    places = np.linalg.lstsq(edges.T, offsets.T, rcond=None)[0]
    east, north = np.rint(np.clip(places, -1e6, 1e6)).astype(np.int64)
    return _from_zero(-north), _from_zero(east)


def _on_the_ground(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project degrees to a plane where a UTM grid is regular, also near a pole or the antimeridian.

    Transverse Mercator of a sphere around the first longitude; its unit is the Earth's radius.
    """
    longitude, latitude = np.radians(degrees - [degrees[0, 0], 0]).T
    sideways = np.clip(np.cos(latitude) * np.sin(longitude), -0.999, 0.999)
    return np.stack([np.arctanh(sideways), np.arctan2(np.tan(latitude), np.cos(longitude))], axis=1)


def _from_zero(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count from the first place; one far from the others (a wrong footprint) is moved to the rim."""
    start = max(int(places.min()), int(np.median(places)) - MAX_CHIPS_ACROSS // 2)
    return np.clip(places - start, 0, MAX_CHIPS_ACROSS - 1)
