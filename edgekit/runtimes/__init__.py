"""Floor 1: one file a runtime: open an artifact, run it. Needs the standard library, numpy, `edgekit.core`, itself."""
