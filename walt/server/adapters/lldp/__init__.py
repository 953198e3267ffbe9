"""lldpd, which makes the server known to its switch, and snmpd, which shows what it hears."""
