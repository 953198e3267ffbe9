"""SSH with nodes: keys, and sessions through the ssh client."""
