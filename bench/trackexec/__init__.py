"""Cost of recording the execution of the server."""
