#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds the Debian guest of the tests, once: a disk image with systemd, sshd and PostgreSQL, and beside it the
# distribution's kernel and initrd, a key to log in with, and pgbench for the outside.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

FILES=$(cd "$SETUP_DIR/../guests/debian" && pwd)
SUITE=$(. /etc/os-release && echo "$VERSION_CODENAME")
PACKAGES="linux-image-cloud-amd64 initramfs-tools zstd systemd-sysv systemd-resolved udev dbus openssh-server iproute2
    iputils-ping iperf3 procps less nano postgresql"
# Another recipe or another suite is another image.
STAMP=$(cat "${BASH_SOURCE[0]}" $(find "$FILES" -type f | sort) | { cat; echo "$SUITE"; } | sha256sum | cut -c1-16)
TARGET=$CACHE/debian-$SUITE-$STAMP
IMAGE_MIB=1280

link() { ln -sfn "$TARGET" "$SETUP_DIR/../../build/debian"; }

mkdir -p "$SETUP_DIR/../../build"
if [ -f "$TARGET/packages.txt" ]; then
    link
    exit 0
fi
say "building the Debian guest's disk (two to five minutes, once)"
work=$(mktemp -d "$CACHE/debian.XXXXXX")
trap 'as_root rm -rf "$work"' EXIT

# The archive that this machine's own apt uses.
sources() {
    local mirror
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || die "no Debian archive in this machine's apt sources"
    echo "deb $mirror $SUITE main"
}

ssh-keygen -q -t ed25519 -N '' -C skiff-tests -f "$work/key"
log=$work/mmdebstrap.log
sources | as_root mmdebstrap --quiet --mode=root --variant=minbase --include="$(tr -s ' \n' ',' <<<"$PACKAGES" | sed 's/,$//')" \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-include=/usr/share/locale/locale.alias' \
    --essential-hook="copy-in '$FILES/root/etc' /" \
    --customize-hook="'$FILES/customize.sh' \"\$1\" '$work/key.pub'" \
    "$SUITE" "$work/root" - >"$log" 2>&1 || die "mmdebstrap failed: $(tail -n 3 "$log")"
as_root cp "$work/root"/boot/vmlinuz-* "$work/vmlinuz"
as_root cp "$work/root"/boot/initrd.img-* "$work/initrd"
as_root cp "$work/root"/usr/lib/postgresql/*/bin/pgbench "$work/pgbench"
as_root dpkg-query --admindir="$work/root/var/lib/dpkg" -W >"$work/packages.txt"
# The file system is made as a file: no loop device, no mount.
as_root /sbin/mke2fs -q -t ext4 -L skiff-root -E lazy_itable_init=0 -d "$work/root" "$work/root.img" "${IMAGE_MIB}M" >/dev/null
as_root rm -rf "$work/root"
as_root chown -R "$(id -u):$(id -g)" "$work"
rm -f "$log"
rm -rf "$TARGET"
chmod 755 "$work"
mv "$work" "$TARGET"
trap - EXIT
link
