"""Cost models that turn counted work into milliseconds and bytes: roofline, emulated core, microcontroller, flash."""
