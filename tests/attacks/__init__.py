"""Attacks on a platform, as the least privileged peer who can try them: all must fail."""
