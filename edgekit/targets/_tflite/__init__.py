"""What the TFLite target's conversions share."""
