"""The search for a quantization recipe that meets the limits."""
