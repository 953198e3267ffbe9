"""Whom dhcpd runs as."""

USER = "walt-dhcp"  # Debian has no account for it
