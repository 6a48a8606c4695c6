"""The step graph, digests of the files that steps read and write, and the state of earlier runs."""
