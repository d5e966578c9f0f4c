#!/bin/bash
# SPDX-License-Identifier: MIT
# Fetches Debian's kernel packages for the guests and takes kernel and modules out of them, without installing them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MODULES="button evdev"
# The drivers of what a guest has, with what they depend on.
VIRTIO_MODULES="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover
    virtio_net virtio_blk virtio-rng virtio_balloon"
# For native figures of a link.
NIC_MODULES="e1000 e1000e"
# For figures of Linux as a hypervisor, in the order in which they are loaded.
KVM_MODULES="irqbypass kvm ccp kvm-amd llc stp bridge tun vhost_iotlb vhost tap vhost_net $VIRTIO_MODULES"
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

# take_modules FROM TO MODULE...: finds each below FROM and puts it into TO, uncompressed. One that this kernel has built
# in is an empty file.
take_modules() {
    local from=$1 to=$2 module found
    shift 2
    mkdir -p "$to"
    for module in "$@"; do
        found=$(find "$from" -name "$module.ko*" | head -n 1)
        case $found in
        *.xz) xz -dc "$found" >"$to/$module.ko" ;;
        *.ko) cp "$found" "$to/$module.ko" ;;
        *)
            grep -qx "kernel/.*/$module\.ko" "$(find "$from" -name modules.builtin)" ||
                die "the kernel package has no module '$module'"
            : >"$to/$module.ko"
            ;;
        esac
    done
}

# take KIND META [FOLDER MODULE...]: leaves vmlinuz, the modules, further ones in FOLDER, and package.json in the cache's
# kernel/KIND.
take() {
    local kind=$1 meta=$2 folder=${3:-} target=$CACHE/kernel/$1 package deb record sha
    shift $(($# < 3 ? $# : 3))
    [ -f "$target/package.json" ] && ls $(printf "$target/$folder/%s.ko " "$@") >/dev/null 2>&1 && return 0
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
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work" --wildcards './boot/vmlinuz-*' '*/modules/*'
    take_modules "$work" "$target.new" $MODULES
    [ $# -eq 0 ] || take_modules "$work" "$target.new/$folder" "$@"
    cp "$work"/boot/vmlinuz-* "$target.new/vmlinuz"
    printf '{"package": "%s", "version": "%s", "sha256": "%s", "vmlinuz_sha256": "%s"}\n' \
        "${package%%=*}" "${package#*=}" "$sha" "$(sha256sum <"$target.new/vmlinuz" | cut -d' ' -f1)" \
        >"$target.new/package.json"
    rm -rf "$target" "$work"
    mv "$target.new" "$target"
}

# shellcheck disable=SC2086
take cloud linux-image-cloud-amd64 drivers $VIRTIO_MODULES
# shellcheck disable=SC2086
take generic linux-image-amd64 drivers $VIRTIO_MODULES $NIC_MODULES
# shellcheck disable=SC2086
take kvm linux-image-amd64 kvm $KVM_MODULES
