"""Desired configuration of DHCP, DNS, TFTP and the boot tree, without I/O."""
