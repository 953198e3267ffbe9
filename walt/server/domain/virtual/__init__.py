"""Virtual nodes: their settings, their machines, their console."""
