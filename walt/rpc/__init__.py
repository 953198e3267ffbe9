"""The AMP contract: typed commands, arguments and errors. No I/O."""
