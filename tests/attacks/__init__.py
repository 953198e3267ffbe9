"""Attacks, each performed as the least privileged peer who can try it."""
