"""`clay verify`: does the output hold what the bucket and the settings call for?

    facts.py      what was seen of a tile and of a published file
    gather.py     seeing it: listings and footers, a few requests a tile; on demand every row
    judge.py      what is wrong with it; pure
    recompute.py  a sample of chips embedded again and compared with the published vectors
    report.py     the answer as text and as JSON
    command.py    arguments and exit status

Not here: what is to embed (`state`), and judging a tile while it is made (`quality`).
"""
