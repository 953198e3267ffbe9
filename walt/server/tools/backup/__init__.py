"""`walt advanced backup` and `restore`: a platform in one file."""
