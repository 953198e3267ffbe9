"""Log lines of a node: the daemon behind walt-log-echo, and walt-log-monitor."""
