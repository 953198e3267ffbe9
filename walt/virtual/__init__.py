"""Nodes emulated by machines of walt-net that are not the server (spec node-protocols §8)."""
