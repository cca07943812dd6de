"""Guarantees of whole runs: nothing is lost and nothing damaged is used."""
