"""Benchmarks of speed, compared with the hardware's limit and with the original's design.

    python -m benchmarks            # all, in under ten minutes on two cores
    python -m benchmarks.encoder    # one

Each prints a table and one line of JSON. `peer` and `peer_tile` rebuild the original's design for comparison.
"""
