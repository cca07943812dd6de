"""What the demo's embeddings look like to someone who has only their files.

Here: text about published files, read as anybody would: with geopandas, or with pyarrow where it is missing.
Not here: anything that the pipeline needs.
"""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shapely

from clay_assets.chips import ChipName
from clay_assets.demo.noise import Floats
from clay_assets.publishing import read_provenance

HEAD = 3
"""Rows of a table that are shown."""

NEXT = """\
Next:
  1. See the assets and run more of them in a browser, at http://localhost:3000
       DAGSTER_HOME=$PWD/.dagster {bin}dagster dev
  2. Real chips and the released weights, with your AWS credentials in the environment
       export CLAY_CHECKPOINT=s3://clay-model-ckpt/v0/clay-small-70MT-1100T-10E.ckpt
       export CLAY_CHIPS_URI=s3://clay-tiles-02/02
       {bin}dagster asset materialize -m clay_assets.definitions --select '*' --partition 27WXN
  3. Open the files in QGIS (Layer > Add Layer > Add Vector Layer), or ask DuckDB
       {bin}python -c "import duckdb; duckdb.sql('''SELECT date, count(*) AS chips
         FROM read_parquet('{files}') GROUP BY date ORDER BY date''').show()"
"""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """A published file's content.

    Attributes:
        reader: The call that read it.
        head: Its first rows as a table.
        crs: Coordinate reference system of its geometries.
        chips: What each row's source_url says.
        vectors: (rows, numbers in an embedding).
    """

    reader: str
    head: str
    crs: str
    chips: list[ChipName]
    vectors: Floats


def show(output: Path) -> Iterator[str]:
    """Describe the files of a folder, in lines of at most 100 columns where its path is no longer than usual.

    Args:
        output: A local folder of published files.

    Raises:
        FileNotFoundError: If there is none in it.
    """
    files = sorted(output.glob("*.gpq"))
    if not files:
        raise FileNotFoundError(f"no .gpq file in {output}: `make demo` puts two there")
    contents = {file: read_embeddings(file) for file in files}
    yield "The embeddings:"
    for file, content in contents.items():
        yield f"  {file}  {len(content.chips)} rows, {file.stat().st_size / 1000:.0f} kB"
    yield ""
    file, content = next(iter(contents.items()))
    dates = sorted({chip.date for chip in content.chips})
    yield f"{content.reader} reads from {file.name}:"
    yield from (f"  {line}" for line in content.head.splitlines())
    yield f"  {len(content.chips)} rows, CRS {content.crs}, dates {dates[0]} to {dates[-1]}"
    yield ""
    yield "Which chips are alike (cosine of their embeddings; 1: the same):"
    for content in contents.values():
        yield from (f"  {line}" for line in _alike(content))
    yield ""
    yield from _weights(files)
    yield ""
    commands = ".venv/bin/" if Path(".venv/bin/dagster").exists() else ""
    yield NEXT.format(bin=commands, files=output / "*.gpq").rstrip()


def read_embeddings(file: Path) -> Embeddings:
    """Read a published file, with geopandas if it is installed."""
    if find_spec("geopandas"):
        import geopandas  # a development dependency

        frame = geopandas.read_parquet(file)
        reader, crs = "geopandas.read_parquet", ":".join(frame.crs.to_authority())
        columns = {name: list(frame[name]) for name in frame.columns}
    else:
        table = pq.read_table(file)
        reader, crs = "pyarrow.parquet.read_table", "as its geo metadata says"
        columns = {name: table[name].to_pylist() for name in table.column_names}
        columns["geometry"] = list(shapely.from_wkb(columns["geometry"]))
    return Embeddings(
        reader=reader,
        head=_table(columns),
        crs=crs,
        chips=[ChipName.parse(url) for url in columns["source_url"]],
        vectors=np.array([np.ravel(vector) for vector in columns["embeddings"]], np.float32),
    )


def _table(columns: dict[str, list[object]]) -> str:
    """The first rows, each value cut to what tells it from others."""
    cut = {name: [name, *(_brief(value) for value in values[:HEAD])] for name, values in columns.items()}
    widths = [max(map(len, values)) for values in cut.values()]
    rows = zip(*cut.values(), strict=True)
    return "\n".join("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _brief(value: object) -> str:
    if isinstance(value, str):
        return "…" + value[-36:]
    if isinstance(value, datetime.date):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, Sequence | np.ndarray):
        numbers = np.ravel(np.asarray(value))
        return f"[{numbers[0]:.2f}, {numbers[1]:.2f}, …] ({len(numbers)})"
    return str(value)[:21] + "…"


def _alike(content: Embeddings) -> Iterator[str]:
    """For the tile's first chip: the most and the least similar among the others."""
    if len(content.chips) < 2:
        return
    unit = content.vectors / np.linalg.norm(content.vectors, axis=1, keepdims=True)
    cosines = unit[1:] @ unit[0]
    most, least = int(cosines.argmax()) + 1, int(cosines.argmin()) + 1
    first, near, far = (content.chips[row] for row in (0, most, least))
    yield (
        f"{first.tile}: chip {first.number:04} of {first.date} is most like {near.number:04} of {near.date}"
        f" ({cosines[most - 1]:.4f}),"
    )
    yield f"       least like {far.number:04} of {far.date} ({cosines[least - 1]:.4f})"


def _weights(files: list[Path]) -> Iterator[str]:
    """What the files say of the weights that made them."""
    said = {read_provenance(file).get("weights", "not said") for file in files}
    if any(words.startswith("untrained") for words in said):
        yield "The weights are UNTRAINED: random numbers in the real file format. These embeddings show that"
        yield "the pipeline works, not what Clay sees. The files say so too (Parquet metadata, clay:weights)."
    else:
        yield f"The weights: {'; '.join(sorted(said))} (Parquet metadata, clay:weights)."
