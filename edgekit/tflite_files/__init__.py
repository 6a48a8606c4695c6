"""Reading, rewriting and translation of .tflite files, without a framework."""
