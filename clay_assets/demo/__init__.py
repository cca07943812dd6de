"""What `make demo` needs in place of a bucket and a checkpoint: chips of real places, untrained weights.

Here: chips of two places that Sentinel-2 saw (`chips`; `README.md` says from where), a checkpoint
(`checkpoint`), a command's progress (`watch`) and a look at the published files (`report`).
Not here: anything that the pipeline imports.
"""
