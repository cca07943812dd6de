"""What was made, described so that it can be found: STAC Items, one Collection, and the model.

STAC 1.0.0 with the embeddings extension 0.0.1, which asks for that version. Plain dictionaries, made by
functions of a file's footer and rows; nothing is embedded or published here. The catalog is not below the
embeddings: readers of a folder take every file there for Parquet.

    described.py    a published file's footer and rows, as an Item needs them
    item.py         → an Item
    model.py        the network as a static MLM Item
    collection.py   Items → the Collection
    mirror.py       Items → one table, `items.parquet`
    catalog.py      where all of it is in a store: publish_item, write_collection

https://github.com/geo-embeddings/embeddings-stac-specification
"""
