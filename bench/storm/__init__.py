"""Many nodes that boot at the same moment, and how fast their files are served."""
