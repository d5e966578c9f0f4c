#!/bin/bash
# SPDX-License-Identifier: MIT
# Brings a Debian 12 or 13 machine to where Skiff builds and its tests run; instant when nothing is missing.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

BUILD_PACKAGES="gcc g++ make binutils pkg-config gnu-efi libtool libltdl-dev libncurses-dev xz-utils patch acpica-tools"
TEST_PACKAGES="clang clang-format libclang-rt-dev libcmocka-dev python3 python3-pytest python3-pytest-xdist"
MACHINE_PACKAGES="ovmf vgabios qemu-system-x86 mtools dosfstools iproute2 iputils-ping tcpdump"
GUEST_PACKAGES="busybox-static cpio libc6-dev mmdebstrap e2fsprogs"
CLIENT_PACKAGES="openssh-client postgresql-client iperf3"

missing_packages() {
    local package
    for package in $BUILD_PACKAGES $TEST_PACKAGES $MACHINE_PACKAGES $GUEST_PACKAGES $CLIENT_PACKAGES; do
        grep -qx "ii $package" <<<"$1" || printf '%s ' "$package"
    done
}

install_packages() {
    local missing
    missing=$(missing_packages "$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n')")
    [ -n "$missing" ] || return 0
    apt_update
    say "installing: $missing"
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing >/dev/null ||
        die "apt could not install: $missing"
}

# unpack NAME: a locked source tree as upstream made it (Debian's patches are not applied), with a stamp of its hash.
unpack() {
    local name=$1 dir tarball sha
    dir=$CACHE/src/$name-$(locked_field "$name" 2)
    sha=$(locked_field "$name" 4)
    [ "$(cat "$dir/.skiff-stamp" 2>/dev/null)" = "$sha" ] && return 0
    say "fetching $name $(locked_field "$name" 2)"
    tarball=$(fetch_locked "$name")
    rm -rf "$dir"
    mkdir -p "$dir"
    tar -xf "$tarball" -C "$dir" --strip-components=1
    echo "$sha" >"$dir/.skiff-stamp"
}

[ "$(uname -m)" = x86_64 ] && [ -f /etc/debian_version ] ||
    die "this set-up knows Debian 12 and 13 on x86-64 only"

install_packages
only_one
for name in lwip zydis zycore inih; do
    unpack "$name"
done
"$SETUP_DIR/kernels.sh"
"$SETUP_DIR/bochs.sh"
"$SETUP_DIR/debian.sh"
say "ready (cache: $CACHE)"
