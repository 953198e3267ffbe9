"""Boot of the small image through the server and by hand."""
