"""One file a bridge, named `<from>_to_<to>.py`: its `BRIDGE` loads a source of one kind as a source of the other."""
