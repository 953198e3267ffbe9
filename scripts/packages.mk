# Debian packages: what for is told in docs/dependencies.md.
BASE_PACKAGES = python3 python3-venv ca-certificates make
SERVER_PACKAGES = \
	bind9 buildah dropbear-bin git iproute2 ipxe isc-dhcp-server nftables mount openssh-client podman \
	postgresql procps qemu-system-x86 runc skopeo tftpd-hpa util-linux \
	nfs-ganesha nfs-ganesha-vfs nbdkit nbdkit-plugin-python mmdebstrap busybox-static kmod \
	e2fsprogs xfsprogs dosfstools iputils-ping bubblewrap slirp4netns lldpd snmpd ptpd
TEST_PACKAGES = nbd-client docker-registry docker.io bind9-dnsutils kea-admin tftp-hpa \
	busybox-static openssl curl zsh socat libnfs-utils libarchive-tools ovmf isc-dhcp-client systemd openssh-server \
	chromium chromium-driver mandoc nginx dbus linuxptp qemu-system-arm u-boot-qemu
# Debian 13 has split the client from docker.io.
ifneq ($(shell . /etc/os-release; echo $$VERSION_CODENAME),bookworm)
TEST_PACKAGES += docker-cli
endif
# Accounts of daemons that Debian's packages run as root.
ACCOUNTS = walt-dhcp walt-vpn
# The lab in a box (make test-lab): what this machine needs on top, and what its guest has
# beside the packages of the server, as a usual Debian has it.
LAB_PACKAGES = qemu-utils
LAB_GUEST = \
	systemd systemd-sysv systemd-resolved udev dbus libpam-systemd linux-image-amd64 \
	initramfs-tools zstd openssh-server python3-venv ca-certificates apparmor nfs-kernel-server \
	rpcbind crun curl nbd-client isc-dhcp-client
