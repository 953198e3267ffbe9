"""`walt doctor`: why do nodes not boot? Each step of a boot is tried, and told in one line."""
