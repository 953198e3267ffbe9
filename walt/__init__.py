"""WalT: a reproducible network testbed."""

__version__ = "11.0"
