"""Code that server, client and tools share: standard library only, Python 3.9."""
