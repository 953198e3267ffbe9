"""Tools of the VPN: `walt-vpn-admin`, and what tries entry points."""
