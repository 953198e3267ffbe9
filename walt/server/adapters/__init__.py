"""The outside world, one package each, implementing the ports of the domains."""
