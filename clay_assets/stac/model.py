"""The network as a STAC Item of the machine-learning-model extension: its inputs and outputs.

The bands, their statistics and the window come from `clay_model.spec`; shape and level from the files.
https://github.com/stac-extensions/mlm/tree/v1.4.0
"""

from clay_assets.publishing.schema import Bounds
from clay_assets.reading.facts import Facts
from clay_assets.stac.parts import EXTENSIONS, Json, box, feature, link
from clay_model.model_spec import ModelSpec
from clay_model.spec import MODELS

AXES = ["groups", "patch_rows", "patch_columns", "dimensions"]
"""Axes of an embedding at the finest level; coarser levels have the last ones."""


def model_item(facts: Facts, *, bbox: Bounds, interval: tuple[str, str], checkpoint: str = "") -> Json:
    """Describe the network that made some files.

    Args:
        facts: Facts of one of the files.
        bbox: Bounds of the imagery, degrees; an Item needs a place and a time.
        interval: First and last time of the imagery, ISO 8601.
        checkpoint: URL of the weights; "" for no asset.
    """
    provenance = facts.provenance
    name = provenance.get("model", "not said")
    spec = next((spec for spec in MODELS if name.startswith(f"{spec.name}-")), None)
    task = ["similarity-search"]
    properties: Json = {
        "start_datetime": interval[0],
        "end_datetime": interval[1],
        "description": f"{name}, a vision transformer for satellite imagery, used as an encoder",
        "mlm:name": name,
        "mlm:architecture": "ViT",
        "mlm:framework": "pytorch",
        "mlm:tasks": task,
        "mlm:pretrained": not provenance.get("weights", "").startswith("untrained"),
        "mlm:input": [_input(spec)] if spec else [],
        "mlm:output": [
            {
                "name": f"embedding at level {provenance.get('level', 'not said')}",
                "tasks": task,
                "result": {
                    "shape": [-1, *facts.shape],
                    "dim_order": ["batch", *AXES[len(AXES) - len(facts.shape) :]],
                    "data_type": "float32",
                },
            }
        ],
        "clay:checkpoint_sha256": provenance.get("checkpoint_sha256", "not said"),
    }
    if spec:
        properties["eo:bands"] = [{"name": band} for band in spec.bands]
    assets = {}
    if checkpoint:
        assets["model"] = {
            "href": checkpoint,
            "type": "application/octet-stream; application=pytorch",
            "roles": ["mlm:model"],
            "mlm:artifact_type": "torch.save",
        }
    return feature(
        id=f"{name}-{facts.shape[-1] if facts.shape else 0}",
        geometry=box(bbox),
        bbox=bbox,
        extensions=[f"{EXTENSIONS}/mlm/v1.4.0/schema.json", f"{EXTENSIONS}/eo/v1.1.0/schema.json"],
        properties=properties,
        links=[link("root", "collection.json"), link("parent", "collection.json")],
        assets=assets,
    )


def _input(spec: ModelSpec) -> Json:
    return {
        "name": "windows of chips",
        "bands": list(spec.bands),
        "input": {
            "shape": [-1, len(spec.bands), spec.window_size, spec.window_size],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": deviation}
            for mean, deviation in zip(spec.mean, spec.deviation, strict=True)
        ],
    }
