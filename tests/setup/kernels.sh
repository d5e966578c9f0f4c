#!/bin/bash
# SPDX-License-Identifier: MIT
# Fetches Debian's kernel packages for the guests and takes kernel and modules out of them, without installing them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MODULES="button evdev"
work=
trap 'rm -rf "$work"' EXIT

# field NAME: one field of the package record on standard input.
field() { sed -n "s/^$1: //p" | head -n 1; }

# real_package META: the versioned package that a kernel metapackage stands for, as 'name=version'.
real_package() {
    local depends
    depends=$(apt-cache --no-all-versions show "$1" 2>/dev/null | field Depends)
    sed -nE 's/^([^ ,]+) \(= ([^)]+)\).*/\1=\2/p' <<<"$depends"
}

# take KIND META: leaves vmlinuz, the modules and package.json in the cache's kernel/KIND.
take() {
    local kind=$1 meta=$2 target=$CACHE/kernel/$1 package deb record sha module found
    [ -f "$target/package.json" ] && return 0
    package=$(real_package "$meta")
    if [ -z "$package" ]; then
        apt_update
        package=$(real_package "$meta")
    fi
    [ -n "$package" ] || die "apt knows no package $meta: check that the apt sources have Debian's 'main'"
    say "fetching the guest kernel ${package/=/ }"
    work=$(mktemp -d "$CACHE/kernel-$kind.XXXXXX")
    if ! (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package") 2>/dev/null; then
        apt_update
        package=$(real_package "$meta")
        (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
            die "could not download $package from the Debian mirror"
    fi
    deb=$(echo "$work"/*.deb)
    record=$(apt-cache show "$package")
    sha=$(field SHA256 <<<"$record")
    sha_matches "$deb" "$sha" || die "${deb##*/} is not what apt's index says (SHA-256 $sha expected)"
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work" --wildcards \
        './boot/vmlinuz-*' $(printf "*/%s.ko* " $MODULES)
    mkdir -p "$target.new"
    cp "$work"/boot/vmlinuz-* "$target.new/vmlinuz"
    for module in $MODULES; do
        found=$(find "$work" -name "$module.ko*" | head -n 1)
        case $found in
        *.xz) xz -dc "$found" >"$target.new/$module.ko" ;;
        *.ko) cp "$found" "$target.new/$module.ko" ;;
        *) die "$package has no module '$module'" ;;
        esac
    done
    printf '{"package": "%s", "version": "%s", "sha256": "%s", "vmlinuz_sha256": "%s"}\n' \
        "${package%%=*}" "${package#*=}" "$sha" "$(sha256sum <"$target.new/vmlinuz" | cut -d' ' -f1)" \
        >"$target.new/package.json"
    rm -rf "$target" "$work"
    mv "$target.new" "$target"
}

take cloud linux-image-cloud-amd64
take generic linux-image-amd64
