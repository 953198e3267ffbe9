"""Sessions on nodes through the ssh client."""
