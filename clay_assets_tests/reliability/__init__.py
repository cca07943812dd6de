"""Promises of the whole: nothing lost, nothing let in, whatever the store, the process and files do."""
