"""Finds similar places: the nearest embeddings by cosine, compared one by one in bounded memory, no index.

Imports neither PyTorch nor Dagster. This file imports nothing, so that other commands need not import
geopandas.

    similar.py     `similar`: all steps in order
    examples.py    chips named by URL or by place and date → their rows and vectors
    similarity.py  the collection's mean, the cosine, the k best of a stream
    picture.py     the chips found, in true colour
    command.py     `clay similar`
"""
