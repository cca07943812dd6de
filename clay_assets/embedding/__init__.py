"""Turns chips into vectors: plans a tile, loads the encoder, streams the chips, stores the results.

plan.py              takes over what a killed run left; the chips to embed, the results to keep
encoders.py          checkpoint, level, precision and devices of the encoder
checkpoint_cache.py  downloads, hashes and describes a checkpoint once
stream               fetch → decode → batch → encode, for all tiles of a run
run.py               the streams and networks that the tiles of a run share
tile.py              embeds one tile and stores its results, however it ends
energy.py            the energy that a device uses
progress.py          a bar on a terminal, else a line every few seconds
"""
