"""The platform's certificate authority and the TLS settings of its listeners."""
