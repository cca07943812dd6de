"""A Ray cluster on one machine: a backfill over several hosts, one of which vanishes and another joins.

    python -m cluster

It starts what it needs and stops it again. Here: the hosts and their network (`network`), the nodes of Ray
(`ray_nodes`), the bucket's content (`scene`), what is read from Dagster, S3 and the system about who did
what (`observing`), what happens (`play`) and what it costs (`measuring`). The servers and the questions to
Dagster are the rehearsal's. Not here: anything that a deployment needs; that is in `deploy/ray/`, whose
settings run here.
"""
