"""Files for monitoring systems: a dashboard of Grafana, alert rules of Prometheus."""
