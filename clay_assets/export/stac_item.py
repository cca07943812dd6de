"""An exported dataset as a STAC Item, with `emb:quantization` if its vectors are bytes."""

from datetime import datetime
from typing import TYPE_CHECKING

from clay_assets.export.writer import as_lists, copy_schema
from clay_assets.reading.facts import Quantization
from clay_assets.stac.parts import (
    EMBEDDINGS,
    PARQUET,
    PROCESSING,
    TABLE,
    Json,
    box,
    feature,
    file_properties,
)

if TYPE_CHECKING:
    from clay_assets.export.dataset import Exported


def export_item(done: "Exported", width: int, quantization: Quantization | None, made: datetime) -> Json:
    """Describe a dataset.

    Args:
        done: Result of the export.
        width: Numbers of an embedding.
        quantization: None for float32.
        made: Time of the export.
    """
    schema = copy_schema(width, quantized=quantization is not None)
    properties: Json = {
        **file_properties(done.provenance, schema, done.rows, (done.first, done.last), made),
        "clay:model": done.provenance.get("model", "not said"),
        "clay:bytes": done.bytes,
    }
    if quantization is not None:
        properties["emb:quantization"] = {
            "method": "affine: stored * scale + offset, by dimension",
            "original_dtype": "float32",
            "quantized_dtype": "uint8",
            **as_lists(quantization),
        }
    if done.recall is not None:
        properties["clay:recall"] = vars(done.recall)
    return feature(
        id=done.url.rstrip("/").rpartition("/")[2],
        geometry=box(done.bbox),
        bbox=done.bbox,
        extensions=[EMBEDDINGS, PROCESSING, TABLE],
        properties=properties,
        links=[],
        assets={"embeddings": {"href": "./", "type": PARQUET, "roles": ["data"]}},
    )
