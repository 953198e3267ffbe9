"""The WalT server."""
