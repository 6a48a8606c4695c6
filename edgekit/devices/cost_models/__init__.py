"""From counted work to milliseconds and bytes: roofline, emulated core, microcontroller, flash."""
