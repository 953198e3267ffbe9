"""Addresses and forwarding rules of walt-net, without I/O."""
