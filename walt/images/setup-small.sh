#!/bin/sh
# Complete the extracted packages in directory $1 into a small bootable system, with the help of
# a busybox ($2) that runs here.
set -e
root="$1"
busybox="$2"
cd "$root"
mkdir -p bin sbin usr/bin usr/sbin dev proc sys run tmp root var/lib/walt var/log mnt \
    persist etc/dropbear etc/ssh etc/walt root/.ssh
chmod 1777 tmp
chmod 700 root root/.ssh
mkdir -p usr/share/udhcpc
for applet in $("$busybox" --list); do
    case "$applet" in dpkg | dpkg-deb | rpm | rpm2cpio | busybox) continue ;; esac
    [ -e "bin/$applet" ] || [ -h "bin/$applet" ] || ln -s busybox "bin/$applet"
done
ln -sf ../bin/busybox sbin/init
for pair in modprobe reboot poweroff halt getty; do
    [ -e "sbin/$pair" ] || ln -s ../bin/busybox "sbin/$pair"
done
[ -e usr/bin/env ] || ln -s ../../bin/busybox usr/bin/env
cat > etc/passwd <<END
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
cat > etc/group <<END
root:x:0:
nogroup:x:65534:
END
echo 'root:*:19000:0:99999:7:::' > etc/shadow
chmod 600 etc/shadow
echo /bin/sh > etc/shells
cat > etc/inittab <<END
::sysinit:/etc/init.d/rcS
::respawn:/usr/sbin/dropbear -F -E -s -r /etc/dropbear/dropbear_ecdsa_host_key
console::respawn:-/bin/sh
::ctrlaltdel:/sbin/reboot
END
mkdir -p etc/init.d
cat > etc/init.d/rcS <<'END'
#!/bin/sh
mkdir -p /dev/pts /dev/shm
[ -e /proc/self ] || mount -t proc proc /proc
[ -d /sys/class ] || mount -t sysfs sysfs /sys
mount -t devpts -o mode=620 devpts /dev/pts
mount -t tmpfs tmpfs /tmp
ifconfig lo 127.0.0.1 up
[ -s /etc/hostname ] && hostname -F /etc/hostname
exit 0
END
chmod 755 etc/init.d/rcS
