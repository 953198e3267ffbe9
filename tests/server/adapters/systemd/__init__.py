"""Tests of the orders to systemd, on a real message bus."""
