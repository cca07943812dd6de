"""Tiles: the code, the manifest, the bounds on the ground, the inventory of chips."""
