"""Memory of idle connections."""
