"""A burst of new DHCP clients on a live platform."""
