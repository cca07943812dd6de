"""Summary of published files, for the demo."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HEAD = 3
"""Rows shown per file."""

NEXT = """\
Next:
  1. See the assets, with a picture of each tile, at http://localhost:3000
       DAGSTER_HOME=$PWD/.dagster {bin}dg dev
  2. Real chips and the released weights, with your AWS credentials in the environment
       export CLAY_CHECKPOINT=s3://clay-model-ckpt/v0/clay-small-70MT-1100T-10E.ckpt
       export CLAY_CHIPS_URI=s3://clay-tiles-02/02
       {bin}dg launch --assets '+embeddings_geoparquet' --partition 27WXN
  3. Open the files in QGIS (Layer > Add Layer > Add Vector Layer), or query them with DuckDB
       {bin}python -c "import duckdb; duckdb.sql('''SELECT date, count(*) AS chips
         FROM read_parquet('{files}') GROUP BY date ORDER BY date''').show()"
"""


def show(output: Path) -> Iterator[str]:
    """Describe the published files of a folder, one line at a time.

    Args:
        output: A local folder.

    Raises:
        FileNotFoundError: If it has no published file.
    """
    files = sorted(output.glob("*.gpq"))
    if not files:
        raise FileNotFoundError(f"no .gpq file in {output}: run `make demo`, which publishes two")
    yield "The embeddings, with each chip's cosine similarity to the first chip:"
    for file in files:
        yield f"  {file}, {file.stat().st_size / 1000:.0f} kB"
        yield from (f"    {line}" for line in _rows(file))
    yield ""
    weights = {pq.read_metadata(file).metadata.get(b"clay:weights", b"unknown").decode() for file in files}
    if any(text.startswith("untrained") for text in weights):
        yield "The weights are UNTRAINED: random numbers in the released format. The embeddings show that the"
        yield "pipeline works, not what Clay sees. The files say so too (Parquet metadata, clay:weights)."
    else:
        yield f"The weights: {'; '.join(sorted(weights))} (Parquet metadata, clay:weights)."
    yield ""
    commands = ".venv/bin/" if Path(".venv/bin/dg").exists() else ""
    yield NEXT.format(bin=commands, files=output / "*.gpq").rstrip()


def _rows(file: Path) -> Iterator[str]:
    """Yield the first rows of a file, and the number of rows."""
    table = pq.read_table(file, columns=["source_url", "date", "embeddings"])
    vectors = np.array([np.ravel(vector) for vector in table["embeddings"].to_pylist()])
    cosines = vectors @ vectors[0] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[0])
    for row in range(min(HEAD, len(vectors))):
        name = table["source_url"][row].as_py().rsplit("/", 1)[-1]
        first, second = vectors[row, :2]
        values = f"[{first:.2f}, {second:.2f}, …] ({vectors.shape[1]})"
        yield f"{name}  {table['date'][row]}  {values}  {cosines[row]:.4f}"
    yield f"{len(vectors)} rows, lowest similarity {cosines.min():.4f}"
