"""The AMP commands, one module a domain."""
