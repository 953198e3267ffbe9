"""What is on the network: devices, names, sets, settings."""
