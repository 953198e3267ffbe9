"""Bridge, interfaces, taps and network namespaces, through iproute2."""
