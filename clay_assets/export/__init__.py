"""One dataset of all tiles, for those who share embeddings: `clay export`.

GeoParquet 1.1 with a bbox column, rows along a Hilbert curve, partitioned by grid zone and year; vectors as
they are or as bytes, and what the bytes cost, measured. Reading is `reading`'s; published files are not
changed.

    layout.py        which row goes where: zone, year, Hilbert order, row groups
    gathering.py     rows of many files in that order, in bounded memory
    quantization.py  float32 ↔ uint8, and the recall that is left
    writer.py        one partition's file
    dataset.py       `export`: all of it in order, and the report beside it
    command.py       `clay export`
"""
