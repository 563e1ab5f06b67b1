"""The laboratory's commands, which `vlm3` finds by entry points."""
