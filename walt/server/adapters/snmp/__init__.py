"""SNMP to switches, in a worker."""
