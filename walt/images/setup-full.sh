#!/bin/sh
# Turn the installed system in directory $1 into a node image.
set -e
root="$1"
# Host keys come from the server; nothing here is to be unique or shared by accident.
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
: > "$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/etc/apt/apt.conf.d/99mmdebstrap"
mkdir -p "$root/root/.ssh" "$root/persist" "$root/etc/walt"
chmod 700 "$root/root/.ssh"
printf 'HostKey /etc/ssh/ssh_host_ecdsa_key\n' > "$root/etc/ssh/sshd_config.d/walt.conf"
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer dpkg-db-backup.timer systemd-remount-fs.service systemd-update-utmp.service \
    iperf3.service nftables.service rsync.service systemd-pcrphase.service systemd-pcrphase-sysinit.service nbd@.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
for getty in getty@tty1 serial-getty@ttyS0; do
    mkdir -p "$root/etc/systemd/system/$getty.service.d"
    cat > "$root/etc/systemd/system/$getty.service.d/autologin.conf" <<END
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud %I 115200,38400,9600 \$TERM
END
done
# The address was given at boot; only the server's lease may change it.
mkdir -p "$root/etc/systemd/network"
cat > "$root/etc/systemd/system/walt-lldp-monitor.service" <<END
[Unit]
Description=Report LLDP neighbours to the WalT server
After=lldpd.service
Wants=lldpd.service
ConditionPathExists=/bin/walt-report-lldp-neighbor

[Service]
ExecStart=/usr/local/sbin/walt-lldp-monitor
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
END
cat > "$root/usr/local/sbin/walt-lldp-monitor" <<'END'
#!/bin/sh
# Tell the server each switch port seen, once per appearance.
report() {
    switch="" port=""
    while IFS='=' read -r key value; do
        case "$key" in
            *.chassis.mac) switch="$value" ;;
            *.port.ifname | *.port.local | *.port.mac) port="${port:-$value}" ;;
            *.port.descr) descr="$value" ;;
        esac
    done
    [ -n "$switch" ] && walt-report-lldp-neighbor "$switch" "${port:-$descr}"
}
last=""
while :; do
    now="$(lldpcli -f keyvalue show neighbors 2>/dev/null | grep -E 'chassis.mac|port\.')"
    if [ -n "$now" ] && [ "$now" != "$last" ]; then
        printf '%s\n' "$now" | report && last="$now"
    fi
    [ -n "$now" ] || last=""
    sleep 30
done
END
chmod 755 "$root/usr/local/sbin/walt-lldp-monitor"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../walt-lldp-monitor.service \
    "$root/etc/systemd/system/multi-user.target.wants/walt-lldp-monitor.service"
# A board whose firmware is slow starts its next kernel itself; where that fails, or the server says
# kexec.allow=false, the node reboots as others do.
cat > "$root/usr/local/sbin/walt-ipxe-kexec-reboot" <<'END'
#!/bin/sh
PYTHONPATH=/usr/share/walt/node-tools.zip exec python3 -s -c 'from walt.virtual.kexec import main; main()'
END
chmod 755 "$root/usr/local/sbin/walt-ipxe-kexec-reboot"
ln -s /usr/local/sbin/walt-ipxe-kexec-reboot "$root/bin/walt-network-reboot"
ln -sf /dev/null "$root/etc/systemd/system/kexec-load.service"
ln -sf /dev/null "$root/etc/systemd/system/kexec.service"
