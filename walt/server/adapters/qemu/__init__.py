"""QEMU machines as children of the server."""
