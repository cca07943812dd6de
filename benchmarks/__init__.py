"""How fast it is, measured beside the limit and beside the original's design.

    python -m benchmarks            # all, in under ten minutes on two cores
    python -m benchmarks.encoder    # one

Each prints a table for people and one line of JSON for machines. `peer*` is the original's design, rebuilt
for comparison; `measure` runs and watches a command.
"""
