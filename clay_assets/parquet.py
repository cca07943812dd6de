"""Shared by all Parquet files of this package: vectors as NumPy arrays, and errors for damaged files."""

import numpy as np
import pyarrow as pa

TILE = "clay:tile"
"""Metadata key for the tile of a file in the work store; a copy under another tile's name is refused."""


class DamagedFileError(ValueError):
    """A file can't be read as Parquet: it is truncated, overwritten or another format."""


DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""Exceptions that pyarrow raises for damaged files, and for other causes too; see `damaged`."""


def damaged(error: Exception) -> DamagedFileError:
    """Convert pyarrow's error about damaged bytes to ours; raise an error of the storage unchanged."""
    # For a broken footer or page pyarrow raises a bare OSError without a number.
    if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
        raise error
    return DamagedFileError(f"The file can't be read as Parquet ({error}); write it again.")


def vectors(column: pa.Array) -> np.ndarray:
    """Return a fixed-size list or tensor column as (rows, width) float32; no copy if nothing is null.

    A null element becomes NaN; the values of a null row are undefined.
    """
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    width = storage.type.list_size
    # `values` is the whole buffer, also of a slice; `flatten()` would leave out null rows and shift the rest.
    values = storage.values.slice(storage.offset * width, len(storage) * width)
    array: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(len(storage), width)
    return array
