"""A Ray cluster on one machine: backfills over several hosts, one of which disappears: `python -m cluster`.

Starts and stops all that it needs. Here: the hosts and their network (`network`), Ray's nodes
(`ray_nodes`), the coordinator and the workers (`machines`), which host did what (`observing`), the checks
(`play`) and the cost per tile (`measuring`). The servers, the chips and the requests to Dagster are the
rehearsal's. Not here: anything that a deployment needs, which is in `deploy/ray/`; its settings run here.
"""
