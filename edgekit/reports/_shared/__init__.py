"""Table cells, Markdown and command lines that several report formats use."""
