"""The DHCP daemon (isc-dhcpd) as a child."""
