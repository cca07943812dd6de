"""The published file: one GeoParquet 1.0.0 file of embeddings per tile.

schema.py      name, columns and metadata
rows.py        requirements on a row
writer.py      writing a file
validation.py  everything that is wrong with a file
versions.py    the files of a version, and their inputs
publish.py     publishes a tile's results
"""
