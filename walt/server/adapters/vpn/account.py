"""Whom sshd of the VPN runs as, the only account that comes in there."""

ACCOUNT, HOME = "walt-vpn", "/var/lib/walt/vpn-endpoint"
