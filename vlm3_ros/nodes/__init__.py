"""The nodes: thin, only wiring."""
