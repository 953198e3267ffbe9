"""The rules of the testbed, without I/O."""
