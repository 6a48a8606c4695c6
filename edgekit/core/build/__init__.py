"""The step graph, digests of the files that steps read and write, and records of earlier runs."""
