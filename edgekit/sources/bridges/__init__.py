"""One file a bridge, named `<from>_to_<to>.py`: its `BRIDGE` turns a loaded source of one kind into the other."""
