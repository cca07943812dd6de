"""The real thing on loopback: a backfill with PostgreSQL, S3, webserver and daemon.

    python -m rehearsal

It starts what it needs and stops it again. Here: the servers (`servers`), the bucket's content (`scene`),
what the UI asks of Dagster (`dagster_api`), and the pictures (`screenshots`). Not here: anything that a
deployment needs; that is in `deploy/`.
"""
