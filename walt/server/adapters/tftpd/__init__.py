"""The TFTP daemon (tftpd-hpa) as a child, and the boot files it serves."""
