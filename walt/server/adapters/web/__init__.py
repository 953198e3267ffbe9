"""What the web pages keep on the disk."""
