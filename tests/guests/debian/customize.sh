#!/bin/sh
# SPDX-License-Identifier: MIT
# Run by mmdebstrap in the finished system: customize.sh ROOT KEY.PUB. Makes it a server that can be used from outside.
set -eu
root=$1
key=$2

echo debian >"$root/etc/hostname"
printf '127.0.0.1 localhost debian\n::1 localhost\n' >"$root/etc/hosts"
printf 'LABEL=skiff-root / ext4 errors=remount-ro 0 1\n' >"$root/etc/fstab"
# The test's own machine is its only user: root without a password on the serial console, by key over ssh.
chroot "$root" passwd -q -d root
install -d -m 700 "$root/root/.ssh"
install -m 600 "$key" "$root/root/.ssh/authorized_keys"
install -d "$root/etc/systemd/system/serial-getty@ttyS0.service.d"
cat >"$root/etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf" <<'END'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200 %I $TERM
END
# ip= on the kernel's command line becomes the network's configuration.
chroot "$root" systemctl -q enable systemd-networkd systemd-network-generator ssh iperf3
chroot "$root" systemctl -q mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
postgres=$(ls -d "$root"/etc/postgresql/*/main)
cat >>"$postgres/postgresql.conf" <<'END'
listen_addresses = '*'
shared_buffers = 32MB
END
echo 'host all all 0.0.0.0/0 trust' >>"$postgres/pg_hba.conf"
