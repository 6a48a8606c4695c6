"""The environment of a run: project folder, installed packages, user code, plug-ins and atomic file writes."""
