#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds Bochs 3.0, the Intel test machine, into the cache; done once for each version, set of patches and options,
# which lie there side by side. build/bochs points at the one that belongs to this tree.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PATCHES=("$SETUP_DIR"/bochs-*.patch)
# A twentieth faster than with -O2.
export CFLAGS=-O3 CXXFLAGS=-O3
OPTIONS="--with-nogui --with-term --enable-all-optimizations --enable-smp --enable-vmx=2 --enable-svm
    --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-amx --enable-cet --enable-3dnow
    --enable-memtype --enable-pci --enable-e1000 --enable-ne2000 --enable-usb --enable-protection-keys
    --enable-repeat-speedups --enable-a20-pin --disable-debugger --disable-docbook"

version=$(locked_field bochs 2)
stamp=$( (locked_field bochs 4; echo "$OPTIONS $CXXFLAGS"; cat "${PATCHES[@]}") | sha256sum | cut -d' ' -f1)
target=$CACHE/bochs-$version-${stamp:0:16}
mkdir -p "$SETUP_DIR/../../build"
ln -sfn "$target/bochs" "$SETUP_DIR/../../build/bochs"
[ -x "$target/bochs" ] && exit 0

say "building Bochs $version (one to three minutes, once)"
tarball=$(fetch_locked bochs)
work=$(mktemp -d "$CACHE/bochs-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
tar -xf "$tarball" -C "$work" --strip-components=1
for patch in "${PATCHES[@]}"; do
    patch -d "$work" -p1 --quiet <"$patch"
done
log=$CACHE/bochs-build.log
# shellcheck disable=SC2086
if ! (cd "$work" && ./configure $OPTIONS && make -j"$(nproc)" bochs) >"$log" 2>&1; then
    die "Bochs did not build; the last lines of $log are:
$(tail -n 5 "$log")"
fi
mkdir -p "$target"
install -m 755 -s "$work/bochs" "$target/bochs.new"
mv "$target/bochs.new" "$target/bochs"
