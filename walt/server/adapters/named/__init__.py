"""The DNS daemon (bind) as a child."""
