"""The asset checks without Dagster: read back a tile's results and published file, and report their faults.

vectors.py  results: accounting, shape, norms, duplicates, variety
files.py    published file: validity and location
report.py   reports on tiles, stored so that an unchanged tile is not read again, and their sums
"""
