"""Structure-aware fuzzing of everything that edgekit reads."""
