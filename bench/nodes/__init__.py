"""Sets of nodes: boot, run, show."""
