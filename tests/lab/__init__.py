"""The lab in a box: the product as it is installed, on a Debian of its own in QEMU."""
