# SPDX-License-Identifier: MIT
# What the set-up scripts share: cache paths, messages, root rights, and downloads from the machine's own Debian mirror.

SETUP_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/skiff
mkdir -p "$CACHE"
LOCK=$SETUP_DIR/third-party.lock

say() { printf 'setup: %s\n' "$*"; }

die() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# as_root COMMAND...: runs it directly as root, through sudo otherwise.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@" || die "'sudo $*' failed; run it by hand or let root run $SETUP_DIR/setup.sh, then try again"
    else
        die "installing packages needs root: run $SETUP_DIR/setup.sh as root once, or install sudo"
    fi
}

apt_update() {
    say "refreshing the package lists (apt-get update)"
    as_root apt-get -qq update || die "'apt-get update' failed: check /etc/apt/sources.list and the network"
}

# only_one: makes a second set-up on the same cache wait for the first.
only_one() {
    exec 8>"$CACHE/.lock"
    flock -n 8 || { say "waiting for another set-up on $CACHE"; flock 8; }
}

# sha_matches FILE SHA256
sha_matches() { [ -f "$1" ] && echo "$2  $1" | sha256sum --quiet -c - >/dev/null 2>&1; }

# locked_field NAME COLUMN: one field of the lock file (2 version, 3 place, 4 SHA-256).
locked_field() { awk -v n="$1" -v c="$2" '$1 == n { print $c }' "$LOCK"; }

# debian_mirror: the base URI of the Debian archive that this machine's apt uses.
debian_mirror() {
    local uri
    uri=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' |
        awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')
    uri=${uri%/}
    case $uri in
    mirror+file:*) uri=$(awk '/^[a-z]+:/ { print $1; exit }' "${uri#mirror+file:}" 2>/dev/null) ;;
    esac
    printf '%s' "${uri%/}"
}

# fetch_locked NAME: brings a locked tarball into the cache and prints its path.
fetch_locked() {
    local place sha file mirror log
    place=$(locked_field "$1" 3)
    sha=$(locked_field "$1" 4)
    [ -n "$sha" ] || die "$LOCK has no entry '$1'"
    file=$CACHE/download/${place##*/}
    if ! sha_matches "$file" "$sha"; then
        mirror=$(debian_mirror)
        if [ -z "$mirror" ]; then
            apt_update >&2
            mirror=$(debian_mirror)
        fi
        [ -n "$mirror" ] || die "no Debian archive in this machine's apt sources: add a 'deb' line for $(. /etc/os-release && echo "$VERSION_CODENAME") main"
        mkdir -p "$CACHE/download"
        rm -f "$file"
        log=$(/usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file \
            "$mirror/$(sed 's/+/%2b/g; s/~/%7e/g' <<<"$place")" "$file" "SHA256:$sha" 2>&1) || {
            case $log in
            *"404"*) die "$1 $(locked_field "$1" 2) has left the Debian mirror: put the present version and its SHA-256 into $LOCK" ;;
            *[Hh]ash*) die "$1: the mirror's ${place##*/} is not the file that $LOCK names (SHA-256 differs)" ;;
            *) die "could not download $1: $(tail -n 1 <<<"$log")" ;;
            esac
        }
    fi
    printf '%s' "$file"
}
