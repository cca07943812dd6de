"""What all Parquet files of this package share: a column of vectors as NumPy, and damage named as such."""

import numpy as np
import pyarrow as pa

TILE = "clay:tile"
"""Metadata key of the tile that a file in the work store is of; a copy under another name is refused."""


class DamagedFileError(ValueError):
    """A file that can't be read as Parquet: cut short, overwritten, or something else altogether."""


DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a file that is damaged, among other things: see `damaged`."""


def damaged(error: Exception) -> DamagedFileError:
    """Turn pyarrow's complaint about a file's bytes into ours; an error of the storage is raised as it is."""
    # For a broken footer or page pyarrow raises a bare OSError without a number.
    if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
        raise error
    return DamagedFileError(f"The file can't be read as Parquet ({error}); write it again.")


def vectors(column: pa.Array) -> np.ndarray:
    """Return a fixed-size list or tensor column as (rows, width) float32; no copy where nothing is null.

    A null element becomes NaN; the values of a null row are undefined.
    """
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    width = storage.type.list_size
    # `values` is the whole buffer, also of a slice; `flatten()` would leave out null rows and shift the rest.
    values = storage.values.slice(storage.offset * width, len(storage) * width)
    array: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(len(storage), width)
    return array
