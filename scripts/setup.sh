#!/bin/sh
# Set-up for the Makefile's verbs: the package in .venv, and the system packages that are missing.
#
#   scripts/setup.sh run     what `make sweep` needs
#   scripts/setup.sh dev     what the developers' verbs need as well: test, check, bench, docs
#
# It may run before every verb: with nothing to do it takes some milliseconds and prints nothing. All it says goes to
# stderr, so that stdout stays the result's. A missing system package never stops it: less can be measured, and it says
# what. It never removes or replaces a package, and any Docker engine that is there, of whatever origin, is left alone.
#
#   PYTHON=/path/to/python3    the interpreter to build .venv from (3.11 or newer)
#   COLDSTART_SETUP=skip       leave the system's packages alone
#   COLDSTART_SETUP_ROOT=DIR   look for engines under DIR instead of / (for the tests of this script)
set -eu

cd "$(dirname "$0")/.."
profile=${1:-dev}
fs=${COLDSTART_SETUP_ROOT:-}
# A plain user's PATH may lack these, and here it matters whether a command exists, not whether they may use it.
PATH=$PATH:$fs/usr/local/sbin:$fs/usr/sbin:$fs/sbin:$fs/snap/bin
log=$PWD/.venv/setup.log
declined=.venv/.declined
missing=""

say() { printf 'set-up: %s\n' "$*" >&2; }
more() { printf '        %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# CI: a pseudo-terminal nobody watches must not be asked.
on_terminal() { [ "${CI:-}" != true ] && [ -t 0 ] && [ -t 2 ]; }

die() { # WHAT NEXT-STEP...
    say "$1"
    shift
    for line; do more "$line"; done
    exit 1
}

# --- Python ---

is_new_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_python "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11 or newer" "next: correct or unset PYTHON"
        echo "$PYTHON"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.14; do
        # Run, not only found: version managers put commands on PATH that refuse to run.
        if is_new_python "$name"; then
            echo "$name"
            return
        fi
    done
    die "no Python 3.11 or newer here ($(python3 --version 2>/dev/null || echo 'no python3 at all'))" \
        "next: Debian 12+, Ubuntu 24.04+: apt-get install python3 python3-venv" \
        "      elsewhere: install one beside the system's, then make PYTHON=/path/to/python3.11 ..."
}

# Debian leaves ensurepip, which venv needs, to a package of its own, named after the interpreter.
can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
venv_package() { "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'; }

# What the installed package was made from: same key, nothing to do. The interpreter: an upgrade of the system changes
# what .venv/bin/python leads to, and leaves what was installed to the old one.
key() {
    {
        readlink -f .venv/bin/python
        cat pyproject.toml hatch_build.py 2>/dev/null || true
        find coldstart/workloads -type f ! -path '*/built/*' ! -name '*.py[co]' -exec sha256sum {} + 2>/dev/null | sort
    } | sha256sum
}

is_moved() { [ -e .venv/.home ] && [ "$(cat .venv/.home)" != "$PWD" ]; }

is_installed() {
    [ -x .venv/bin/python ] && [ -x .venv/bin/coldstart ] && ! is_moved &&
        [ "$(cat ".venv/.installed-$profile" 2>/dev/null)" = "$(key)" ]
}

# A .venv that cannot work any more goes: its interpreter was removed from the system, or it was moved here from
# another folder, which its commands name in their first lines.
claim_venv() {
    [ ! -d .venv ] || [ -w .venv ] || die "$PWD/.venv belongs to $(stat -c %U .venv), not to $(id -un)" \
        "next: as that user, remove it; then make again"
    if is_moved || { [ -h .venv/bin/python ] && ! is_new_python .venv/bin/python; }; then
        rm -rf .venv
    fi
    mkdir -p .venv
    echo "$PWD" >.venv/.home
    : >"$log"
}

make_venv() { # PYTHON
    if [ ! -x .venv/bin/python ]; then
        can_make_venv "$1" || die "$1 cannot make .venv without $(venv_package "$1")" \
            "next: sudo apt-get install $(venv_package "$1"); then make again"
        "$1" -m venv .venv >>"$log" 2>&1 || failed "$1 could not make .venv"
    fi
    # A .venv made by other tools may hold no pip.
    .venv/bin/python -c 'import pip' 2>/dev/null || .venv/bin/python -m ensurepip >>"$log" 2>&1 ||
        failed "no pip in .venv"
}

install_package() {
    what=.
    [ "$profile" = run ] || what='.[dev]'
    say "installing coldstart ($profile) into .venv; the first time takes a minute or two"
    .venv/bin/python -m pip install --disable-pip-version-check --no-input -e "$what" >>"$log" 2>&1 ||
        failed "pip could not install coldstart into .venv"
    key >.venv/.installed-run
    [ "$profile" = run ] || key >.venv/.installed-dev
}

failed() { # WHAT
    tail -n 5 "$log" | sed 's/^/        | /' >&2
    die "$1" "all of it: $log" "next: look there (network? disk?); then make again"
}

# --- system packages ---

want() { # PACKAGES REASON WITHOUT
    missing="$missing$1|$2|$3
"
}

engine_sockets() {
    echo "$fs/var/run/docker.sock"
    [ -z "${XDG_RUNTIME_DIR:-}" ] || echo "$XDG_RUNTIME_DIR/docker.sock"
    echo "${HOME:-/root}/.docker/run/docker.sock"
    echo "${HOME:-/root}/.docker/desktop/docker.sock"
}

is_dpkg_installed() { has dpkg-query && dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

# A stopped or remote engine counts, too: it is somebody's choice, and ours beside it would be a second one.
has_engine() {
    [ -z "${DOCKER_HOST:-}" ] || return 0
    ! has dockerd || return 0
    # The last one: where the rootless installer puts it.
    for path in "$fs/usr/local/bin/dockerd" "$fs/snap/bin/docker" "$fs/opt/docker-desktop" "${HOME:-/root}/bin/dockerd"; do
        [ ! -e "$path" ] || return 0
    done
    for socket in $(engine_sockets); do
        [ ! -S "$socket" ] || return 0
    done
    for package in docker-ce docker-desktop podman-docker; do
        ! is_dpkg_installed "$package" || return 0
    done
    return 1
}

# Debian names these packages its own way. Firmware and option ROMs come with them, a graphical interface does not.
want_emulator() { # ARCH
    case $1 in
    x86_64) package=qemu-system-x86 ;;
    aarch64) package=qemu-system-arm ;;
    *) return 0 ;;
    esac
    what="virtual machines and unikernels for $1"
    has "qemu-system-$1" || want "$package" "starts $what" "$what"
}

# A user's own machine runs what it is made for; developers test both.
architectures() { [ "$profile" = run ] && uname -m || echo x86_64 aarch64; }

find_missing() {
    has_engine || want docker.io "a Docker engine: none of any origin found here" "runtime docker"
    for arch in $(architectures); do want_emulator "$arch"; done
    [ "$profile" = dev ] || return 0
    # Not qemu-user-static: five times the size, and it may change how the whole machine runs foreign programs.
    [ "$(uname -m)" = aarch64 ] || has qemu-aarch64-static || has qemu-aarch64 ||
        want qemu-user "runs the aarch64 workload in the tests" "the tests of the aarch64 workload"
    has qemu-img || want qemu-utils "writes the disks that tests start machines from" "the tests of machines that start from a disk"
    has busybox || want busybox-static "is what the tests' own Linux guest runs" "the tests of a Linux of one's own"
    has iptables || want iptables "loses packets on purpose in tests" "the test of the unikernel on a bad network"
    has tcpdump || want tcpdump "an independent witness for the benchmarks and tests" "what compares ready with a packet capture"
    has ip || want iproute2 "makes the networks of the lab's nodes" "the lab (docs/lab.md) and its tests"
    has ssh || want openssh-client "reaches the lab's nodes" "the lab (docs/lab.md) and its tests"
    has sshd || want openssh-server "runs in the lab's nodes, not on this machine itself" "the lab (docs/lab.md) and its tests"
    has podman || want podman "is a second engine that images are pushed to in tests" "the test of a push to podman"
    has depmod || want kmod "lists a guest's kernel modules" "the lab's aarch64 machine and its tests"
    has mke2fs || want e2fsprogs "makes a guest's disk" "the lab's aarch64 machine and its tests"
    has sudo || want sudo "makes a node's user root in tests" "the tests of nodes with sudo"
    has fish || want fish "is a login shell of a node in tests" "the tests of nodes with fish"
    has csh || want tcsh "is a login shell of a node in tests" "the tests of nodes with csh"
    has cc || want "gcc libc6-dev" "builds the C program the benchmarks compare with" "the benchmarks' C peer"
}

packages() { printf '%s' "$missing" | cut -d'|' -f1 | tr '\n' ' ' | sed 's/ $//'; }

say_skipped() { # WHY
    say "not installed: $(packages) ($1)"
    printf '%s' "$missing" | while IFS='|' read -r package _ without; do
        more "$without: skipped, for lack of $package"
    done
    ! has apt-get || more "next: sudo apt-get install --no-install-recommends $(packages)"
}

say_reasons() {
    say "will install with apt-get, and nothing is removed or replaced:"
    printf '%s' "$missing" | while IFS='|' read -r package reason _; do
        more "$(printf '%-16s %s' "$package" "$reason")"
    done
}

# Sets `as`, the prefix that gives apt-get its rights, or `why` it may not be run.
find_rights() {
    as="" why=""
    if [ "${COLDSTART_SETUP:-}" = skip ]; then
        why="COLDSTART_SETUP=skip"
    elif ! has apt-get; then
        why="no apt-get here: install what gives the same with this system's own package manager"
    elif is_root; then
        as="env"
    elif ! has sudo; then
        why="not root, and no sudo here"
    elif on_terminal; then
        as="sudo env"
    elif sudo -n true >/dev/null 2>&1; then
        as="sudo -n env"
    else
        why="not root, sudo wants a password, and there is no terminal to ask on"
    fi
    [ -z "$why" ]
}

agreed() {
    on_terminal || return 0
    printf 'set-up: install? [Y/n] ' >&2
    read -r answer || answer=n
    case $answer in
    "" | [Yy]*) rm -f "$declined" ;;
    *)
        packages >"$declined"
        return 1
        ;;
    esac
}

# Daemons of the user's are not restarted on our account (needrestart); a machine that has just started may hold the lock.
apt() {
    # shellcheck disable=SC2086  # $as is a command with its arguments
    $as DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -y -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1
}

has_fresh_lists() { [ -n "$(find "$fs/var/lib/apt/lists" -name '*Packages*' -mtime -1 2>/dev/null | head -n 1)" ]; }

# A machine that had no SSH server is not to get one, neither now nor at its next start, because tests need the program.
# This file is the package's own way to say so.
keep_sshd_off() {
    off=$fs/etc/ssh/sshd_not_to_be_run
    # shellcheck disable=SC2086  # $as is a command with its arguments
    $as mkdir -p "${off%/*}" && $as touch "$off" && more "this machine's own SSH server stays off, until you rm $off"
}

# shellcheck disable=SC2086  # $1 may be several packages
install_one() { # PACKAGES
    [ "$1" != openssh-server ] || keep_sshd_off || return
    apt install --no-install-recommends --no-remove $1 && return
    [ -z "$updated" ] && update_lists && apt install --no-install-recommends --no-remove $1
}

update_lists() {
    updated=yes
    apt update || say "apt-get update failed, going on with the lists there are: see $log"
}

# One at a time, so that one that cannot be had leaves the others; what failed stays in `missing`.
install_missing() {
    wanted=$missing missing="" updated=""
    has_fresh_lists || update_lists
    while IFS='|' read -r package reason without; do
        [ -n "$package" ] || continue
        say "installing $package"
        install_one "$package" || want "$package" "$reason" "$without"
    done <<END
$wanted
END
    [ -z "$missing" ] || say_skipped "apt-get failed: see $log"
}

system_packages() {
    [ -n "$missing" ] || return 0
    if [ -e "$declined" ] && [ "$(cat "$declined")" = "$(packages)" ]; then
        say_skipped "declined before; to be asked again: rm $declined"
    elif ! find_rights; then
        say_skipped "$why"
    else
        say_reasons
        if agreed; then install_missing; else say_skipped declined; fi
    fi
}

# What the workload's Linux VM boots where this machine's own kernel cannot be used. Not the system's: nothing is
# installed, and no rights are needed. Once, with the package: whoever sweeps without a kernel is told what to do.
get_kernels() {
    [ "${COLDSTART_SETUP:-}" != skip ] || return 0
    for arch in $(architectures); do
        case $arch in
        x86_64 | aarch64) scripts/kernels.sh "$arch" || say "no kernel for the Linux VM of $arch" ;;
        esac
    done
}

check_engine_access() {
    [ -z "${DOCKER_HOST:-}" ] || return 0
    found=""
    for socket in $(engine_sockets); do
        [ -S "$socket" ] || continue
        [ ! -w "$socket" ] || return 0
        found=$socket
    done
    [ -n "$found" ] || return 0
    say "$(id -un) may not use the Docker engine at $found: runtime docker will be skipped"
    more "next: sudo usermod -aG docker $(id -un); then log out and in again (members of that group are as good as root)"
}

main() {
    case $profile in run | dev) ;; *) die "no profile '$profile'" "usage: scripts/setup.sh [run|dev]" ;; esac
    if is_installed; then
        find_missing
        system_packages
    else
        python=$(find_python)
        claim_venv
        [ -x .venv/bin/python ] || can_make_venv "$python" || want "$(venv_package "$python")" "makes .venv" "all the rest"
        find_missing
        system_packages
        make_venv "$python"
        get_kernels
        install_package
    fi
    check_engine_access
}

main
