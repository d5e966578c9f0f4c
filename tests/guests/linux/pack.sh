#!/bin/sh
# SPDX-License-Identifier: MIT
# pack.sh IMAGE AGENTS-DIR KERNEL-DIR [FOLDER [GUEST-DIR]]: makes an initramfs of busybox, our init and agents, and a
# kernel's modules, with those of a folder where asked for. With a guest's directory: Debian's QEMU as well, for a guest
# of that kernel.
set -eu
here=$(dirname "$0")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev"
cp /bin/busybox "$root/bin/busybox"
for applet in sh cat echo mount insmod uname sleep poweroff reboot setsid cttyhack ls dmesg free ps kill date \
    grep head tail wc md5sum dd cmp true vi top ip tr ping; do
    ln -s busybox "$root/bin/$applet"
done
cp "$here/init" "$root/init"
for agent in agent agent32; do
    cp "$2/$agent" "$root/bin/$agent"
    strip "$root/bin/$agent"
done
cp "$3"/*.ko "$root/"
[ $# -eq 3 ] || cp -r "$3/$4" "$root/"
if [ $# -eq 5 ]; then
    qemu=$(command -v qemu-system-x86_64)
    # shellcheck disable=SC2046
    cp -L --parents "$qemu" $(ldd "$qemu" | grep -o '/[^ ]*') /usr/share/seabios/bios-256k.bin \
        /usr/share/qemu/kvmvapic.bin /usr/share/qemu/linuxboot_dma.bin "$root"
    mkdir "$root/guest"
    cp "$5/vmlinuz" "$root/guest/vmlinuz"
    cp "$2/initrd-cloud.img" "$root/guest/initrd.img"
fi
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0) | gzip -9n >"$1.new"
mv "$1.new" "$1"
