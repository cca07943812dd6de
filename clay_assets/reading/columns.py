"""Converts a column of embeddings of any Arrow type to a NumPy array.

Published files have tensors, files written through pandas have lists, compact copies have bytes with an
affine map.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clay_assets.reading.facts import Facts


def embedding_array(column: pa.ChunkedArray | pa.Array, facts: Facts) -> NDArray[np.float32]:
    """Return a column as (N, width) float32; no copy of a single chunk of float32 without nulls.

    Args:
        column: Tensors, fixed-size lists or lists of one length, of any numeric type.
        facts: Facts of the column's file.

    Raises:
        ValueError: A row is null, or two rows differ in length.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # older versions of pyarrow, for a column without chunks
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    if storage.null_count:
        raise ValueError(f"got {storage.null_count} rows without an embedding; expected one in each")
    width = _width(storage, facts)
    numbers = storage.flatten().to_numpy(zero_copy_only=False).reshape(len(storage), width)
    if facts.quantization is not None:
        return numbers.astype(np.float32) * facts.quantization.scale + facts.quantization.offset
    return np.asarray(numbers, dtype=np.float32)


def place_means(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Average (N, width) vectors over their places to (N, D), as level mean has them; D divides the width."""
    if vectors.shape[1] == dim:
        return vectors
    means: NDArray[np.float32] = vectors.reshape(len(vectors), -1, dim).mean(axis=1)
    return means


def _width(storage: pa.Array, facts: Facts) -> int:
    if pa.types.is_fixed_size_list(storage.type):
        return int(storage.type.list_size)
    lengths = pc.unique(pc.list_value_length(storage)).to_pylist()
    if len(lengths) > 1:
        raise ValueError(f"got embeddings of {sorted(lengths)} numbers in one file; expected one length")
    return int(lengths[0]) if lengths else facts.width
