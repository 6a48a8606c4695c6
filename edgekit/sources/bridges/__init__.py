"""One file a bridge, named `<from>_to_<to>.py`, with `BRIDGE = ("from", "to")` and `convert(loaded) -> LoadedSource`."""
