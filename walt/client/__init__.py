"""The walt command: standard library only on its ordinary path."""
