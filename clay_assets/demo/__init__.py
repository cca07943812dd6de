"""Data for `make demo` in place of a bucket and a checkpoint: chips of real places, untrained weights.

Here: chips of two places imaged by Sentinel-2 (`chips`; `README.md` names the source), a checkpoint
(`checkpoint`), and a summary of the published files (`report`). The pipeline imports nothing from here.
"""
