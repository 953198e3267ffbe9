#!/bin/sh
# First process of a node: network address from the kernel command line, NFS root,
# then walt-init of the image takes over as process 1.
PATH=/bin
export PATH

fail() {
    echo "walt initrd: $*; rebooting in 10 seconds" >&2
    sleep 10
    reboot -f
}

mkdir -p /proc /sys /dev /run /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null

for word in $(cat /proc/cmdline); do
    case "$word" in
        ip=*) address="${word#ip=}" ;;
        nfsroot=*) nfsroot="${word#nfsroot=}" ;;
        init=*) init="${word#init=}" ;;
        BOOTIF=*) bootif="${word#BOOTIF=}" ;;
        walt.server.ip=*) server="${word#walt.server.ip=}" ;;
        walt.debug) set -x ;;
    esac
done

# ip=<client>:<server>:<gateway>:<netmask>:<host name>:<device>:<autoconf>
IFS=: read -r client_ip server_ip gateway netmask hostname _ <<END
$address
END
# The recommended form of nfsroot has no server: it is the one of ip=, or the DHCP one.
case "$nfsroot" in
    *.*.*.*:*) server_ip="${nfsroot%%:*}"; nfsroot="${nfsroot#*:}" ;;
esac
server_ip="${server_ip:-$server}"
path="${nfsroot%%,*}"
options=ro,nolock,nocto
case "$nfsroot" in *,*) options="${nfsroot#*,}" ;; esac
[ -n "$client_ip" ] && [ -n "$server_ip" ] && [ -n "$path" ] ||
    fail "ip= or nfsroot= is missing on the kernel command line"

# Drivers: exactly those of the devices present; then those of the root file system.
# shellcheck disable=SC2046
modprobe -a -q $(sort -u /sys/bus/*/devices/*/modalias) 2>/dev/null
if [ -d /sys/bus/virtio ]; then
    # shellcheck disable=SC2046
    modprobe -a -q $(sort -u /sys/bus/virtio/devices/*/modalias) nfsv4 overlay 2>/dev/null
else
    modprobe -a -q nfsv4 overlay 2>/dev/null
fi

wanted="$(echo "${bootif#01-}" | tr 'A-F-' 'a-f:')"
find_interface() {
    for one in /sys/class/net/*; do
        [ "${one##*/}" = lo ] && continue
        found=""
        [ -z "$wanted" ] || read -r found < "$one/address"
        if [ "$found" = "$wanted" ]; then
            interface="${one##*/}"
            return 0
        fi
    done
    return 1
}
tries=0
until find_interface; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "no network interface with address $wanted"
    sleep 0.1
done

ifconfig lo 127.0.0.1 up
ifconfig "$interface" "$client_ip" netmask "${netmask:-255.255.255.0}" up ||
    fail "cannot configure $interface"
[ -z "$gateway" ] || [ "$gateway" = 0.0.0.0 ] || route add default gw "$gateway" 2>/dev/null
[ -z "$hostname" ] || hostname "$hostname"

# A physical link takes seconds to come up; a virtual one is there at once.
linked() {
    read -r carrier 2>/dev/null < "/sys/class/net/$interface/carrier" && [ "$carrier" = 1 ]
}
tries=0
until linked; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || fail "no link on $interface"
    sleep 0.1
done

mount_root() {
    mount -t nfs4 -o "ro,vers=4.1,addr=$server_ip,clientaddr=$client_ip" \
        "$server_ip:$path" /root 2>/run/nfs4.err && return 0
    modprobe nfsv3 2>/dev/null
    mount -t nfs -o "vers=3,proto=tcp,addr=$server_ip,$options" \
        "$server_ip:$path" /root 2>/run/nfs3.err
}
tries=0
until mount_root; do
    tries=$((tries + 1))
    if [ "$tries" -ge 10 ]; then
        cat /run/nfs4.err /run/nfs3.err
        fail "cannot mount $server_ip:$path"
    fi
    sleep 2
done
[ -x "/root${init:=/bin/walt-init}" ] || fail "$init is missing in the image"

# The image may have no mount point for them: walt-init mounts what it finds missing.
for one in dev sys proc; do
    mount -o move "/$one" "/root/$one" 2>/dev/null || umount "/$one" 2>/dev/null
done
exec switch_root /root "$init"
fail "cannot start $init"
