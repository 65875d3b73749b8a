#!/bin/sh
# Gets Debian's kernel for clouds, which the workload's Linux VM boots, as a package that is NOT installed.
#
#   scripts/kernels.sh ARCH...    x86_64, aarch64
#
# It lies in $XDG_DATA_HOME/coldstart/kernels afterwards, as ARCH.deb. Where one is there, or this machine's own kernel
# can be used, there is nothing to do. Needs no root. The system's apt does not notice: its sources and keys are used,
# but with lists and caches of our own. All it says goes to stderr. A kernel that cannot be had is no failure: it says
# what to do instead.
#
#   COLDSTART_SETUP_ROOT=DIR   look for this machine's kernel under DIR instead of / (for the tests of this script)
set -eu

fs=${COLDSTART_SETUP_ROOT:-}
case ${XDG_DATA_HOME:-} in
/*) kept=$XDG_DATA_HOME/coldstart/kernels ;;
*) kept=$HOME/.local/share/coldstart/kernels ;;
esac

say() { printf 'kernels: %s\n' "$*" >&2; }

debian_name() { # ARCH
    case $1 in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) say "no architecture '$1'; usage: scripts/kernels.sh x86_64|aarch64..." && exit 2 ;;
    esac
}

has_virtio() { # RELEASE
    modules=$fs/lib/modules/$1
    [ -n "$(find "$modules" -name 'virtio_net.ko*' 2>/dev/null | head -n 1)" ] ||
        grep -q '/virtio_net\.ko$' "$modules/modules.builtin" 2>/dev/null
}

# The kernel that runs here is good enough for a guest, if its file may be read and it has the driver.
has_own() { # ARCH
    [ "$(uname -m)" = "$1" ] || return 1
    for image in "$fs"/boot/vmlinuz-*; do
        if [ -r "$image" ] && has_virtio "${image##*/vmlinuz-}"; then return 0; fi
    done
    return 1
}

# apt as if for a machine of that architecture with nothing installed.
with_apt() { # COMMAND ARGUMENT...
    command=$1
    shift
    "$command" -o "APT::Architecture=$debian" -o "APT::Architectures=$debian" -o "APT::Sandbox::User=$(id -un)" \
        -o "Dir::State=$scratch" -o "Dir::State::status=$scratch/status" -o "Dir::Cache=$scratch" "$@"
}

download() { # PACKAGE, into $scratch
    with_apt apt-get -qq update || say "not all of apt's sources answered"
    package=$(with_apt apt-cache --no-all-versions show "$1" | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
    [ -n "$package" ] && (cd "$scratch" && with_apt apt-get -qq download "$package")
}

get() { # ARCH
    say "getting Debian's kernel for $1, about 25 MB, into $kept"
    mkdir -p "$kept"
    scratch=$(mktemp -d "$kept/.new-XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' HUP INT TERM
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial"
    : >"$scratch/status"
    if download "linux-image-cloud-$debian" </dev/null >"$scratch/log" 2>&1; then
        mv "$scratch"/*.deb "$kept/$1.deb"
    else
        tail -n 3 "$scratch/log" >&2
        advise "$1" "apt-get could not get it"
    fi
    rm -rf "$scratch"
}

advise() { # ARCH WHY
    say "none for $1 ($2). Next: download from Debian the package that linux-image-cloud-$debian depends on;" \
        "then coldstart images build --kernel FILE"
}

for arch; do
    debian=$(debian_name "$arch")
    if [ -e "$kept/$arch.deb" ] || [ -e "$kept/$arch" ] || has_own "$arch"; then
        continue
    elif grep -qx 'ID="\{0,1\}debian"\{0,1\}' "$fs/etc/os-release" 2>/dev/null; then
        get "$arch"
    else
        advise "$arch" "this is not Debian, whose kernels apt could fetch"
    fi
done
