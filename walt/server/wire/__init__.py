"""What a connection speaks, told by its first byte, and who may call what."""
