"""Training loops, one file per framework, and the data sets that ship with edgekit."""
