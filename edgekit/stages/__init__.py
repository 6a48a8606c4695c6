"""The stages (train, export, validate, bench, check): typed values in, typed values out, files in build/."""
