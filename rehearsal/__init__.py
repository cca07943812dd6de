"""A backfill with PostgreSQL, S3, webserver and daemon on loopback: `python -m rehearsal`.

Starts and stops all that it needs. Here: the servers (`servers`), the two stores with the environment
that points to them (`backend`), the content of the bucket (`scene`), Dagster's GraphQL API (`dagster_api`),
the checks (`play`), the pictures (`screenshots`) and a long test with faults (`soak`). Not here: anything
that a deployment needs, which is in `deploy/`.
"""
