"""`clay verify`: compares the published files with the bucket, the manifest and the settings.

Reads only; needs no record of any run.

    check.py      finds the faults of tiles and files: listings and footers, on request every row
    recompute.py  embeds a sample of chips again and compares the vectors
    command.py    options, the answer as text and JSON, exit status

`state` decides what to embed next; `quality` checks a tile while it is being produced.
"""
