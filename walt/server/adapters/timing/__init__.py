"""The clock of the server for walt-net: ptpd (PTP), and an answer to clients of NTP."""
