"""The one place that builds and joins objects, and decides the order of start and stop."""
