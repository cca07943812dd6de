"""`clay export`: one dataset of all tiles, for sharing embeddings.

GeoParquet 1.1 with a bbox column, rows along a Hilbert curve, partitioned by grid zone and year; vectors as
float32, or as bytes with their measured loss. Published files stay as they are.

    layout.py        zone, year and place on the curve of each row; rows of many files in that order
    quantization.py  float32 ↔ uint8, and the recall that remains
    writer.py        one partition's file
    dataset.py       `export`: all steps in order; the report and the STAC Item next to the data
    command.py       `clay export`
"""
