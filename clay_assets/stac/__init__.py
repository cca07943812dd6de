"""The published files described in STAC: Items, one Collection per version, and the model.

STAC 1.0.0 with the embeddings extension 0.0.1, which requires that version. Plain dictionaries, made from a
file's footer and rows. The catalog is not below the embeddings: readers of a folder read every file there as
Parquet.

    parts.py        parts shared by Items, Collection and model
    item.py         a published file as an Item
    model.py        the network as a static MLM Item
    collection.py   Items as a Collection
    mirror.py       Items as one table, `items.parquet`
    catalog.py      the catalog in a store: publish_item, write_collection

https://github.com/geo-embeddings/embeddings-stac-specification
"""
