"""From a source model to artifacts: routes, the export itself, and what a model file contains."""
