#!/bin/sh
# SPDX-License-Identifier: MIT
# pack.sh OUT AGENT KERNEL-DIR: makes an initramfs of busybox, our init and agent, and a kernel's modules.
set -eu
here=$(dirname "$0")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev"
cp /bin/busybox "$root/bin/busybox"
for applet in sh cat echo mount insmod uname sleep poweroff reboot setsid cttyhack ls dmesg free ps kill date \
    grep head tail wc md5sum dd true vi top; do
    ln -s busybox "$root/bin/$applet"
done
cp "$here/init" "$root/init"
cp "$2" "$root/bin/agent"
strip "$root/bin/agent"
cp "$3"/*.ko "$root/"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0) | gzip -9n >"$1.new"
mv "$1.new" "$1"
