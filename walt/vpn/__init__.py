"""Both ends of the VPN's tunnel: programs of the standard library alone, no part of the server."""
