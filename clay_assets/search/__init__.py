"""Find places like this one: the nearest embeddings by cosine, by brute force in bounded memory.

Every vector is read once and compared; no index is built. Belongs here: examples, the comparison, the table,
the picture of what was found, and the command `clay similar`. Opening files and walking through them is
`reading`'s. Imports neither PyTorch nor Dagster, and itself nothing: the command line should not wait for
geopandas when it is asked for something else.

    similar.py    `similar`: all of it in order
    examples.py   chips by URL, by place and by date → the rows that are searched for
    similarity.py the collection's mean, cosine, the k best of a stream
    picture.py    the chips found, in true colour
    command.py    `clay similar`
"""
