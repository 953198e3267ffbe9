"""`walt-server-setup`: makes a Debian machine a WalT server (spec server §8.1)."""
