"""Weeks of log lines in Parquet files, in a directory or a store that speaks S3."""
