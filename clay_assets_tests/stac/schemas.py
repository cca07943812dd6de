"""Validates against the schemas of STAC 1.0.0, its embeddings extension and its model extension."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

FOLDER = Path(__file__).parent.parent / "schemas" / "stac"
SPEC = "https://schemas.stacspec.org/v1.0.0"


def load(name: str) -> Any:  # noqa: ANN401 - a JSON schema
    return json.loads((FOLDER / name).read_text())


def registry() -> Registry[Any]:
    """Returns all schemas by their URLs; of other extensions, the one definition that these refer to."""
    expression = {"type": "object", "required": ["format", "expression"]}
    fields = {"fields": {"properties": {"processing:expression": expression}}}
    data_type = {"bands": {"items": {"properties": {"data_type": {"type": "string"}}}}}
    documents = {
        "https://stac-extensions.github.io/raster/v1.1.0/schema.json": {"definitions": data_type},
        f"{SPEC}/item-spec/json-schema/item.json": load("item.json"),
        f"{SPEC}/collection-spec/json-schema/collection.json": load("collection.json"),
        "https://geojson.org/schema/Feature.json": load("Feature.json"),
        "https://geojson.org/schema/Geometry.json": load("Geometry.json"),
        "https://stac-extensions.github.io/processing/v1.2.0/schema.json": {"definitions": fields},
        "http://json-schema.org/draft-07/schema": Draft7Validator.META_SCHEMA,
    }
    for name in ("basics", "datetime", "instrument", "licensing", "provider"):
        documents[f"{SPEC}/item-spec/json-schema/{name}.json"] = load(f"{name}.json")
    pairs = [(url, DRAFT7.create_resource(document)) for url, document in documents.items()]
    made: Registry[Any] = Registry()
    return made.with_resources(pairs + [(f"{url}#", resource) for url, resource in pairs])


def faults(described: dict[str, Any], schema: str) -> list[str]:
    """Returns a schema's errors for a document, each with its JSON path."""
    validator = Draft7Validator(load(schema), registry=registry())
    found = []
    for error in validator.iter_errors(described):
        # The error of a `oneOf` is uninformative; those of its branches are not.
        inner = [f"{cause.json_path}: {cause.message}" for cause in error.context or []]
        found += inner or [f"{error.json_path}: {error.message}"]
    return found
