"""The published files described in STAC: Items, one Collection per version, and the model.

STAC 1.0.0 with the embeddings extension 0.0.1, which requires that version. Plain dictionaries, made from a
file's footer and rows. The catalog is not below the embeddings: readers of a folder read every file there as
Parquet.

    parts.py        parts shared by all of them, and by the Item of an exported dataset
    item.py         a published file as an Item
    collection.py   all files of a version: the Collection, the network as an Item, Items as one table
    catalog.py      the catalog in a store: publish_item, write_collection

https://github.com/geo-embeddings/embeddings-stac-specification
"""
