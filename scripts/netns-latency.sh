#!/bin/sh
# Measures how long it takes until a network namespace is known; see usage below.
set -eu

usage() {
    cat <<'END'
Usage: scripts/netns-latency.sh [OPTION...]

Builds tcgui-backend and the measuring program (release), and measures on this machine how long after its
mount a network namespace is known: to a bare poll on the mount table (the floor), to the watcher, and to
a client of the running daemon on the bus. Takes about six minutes and wants a quiet machine. Everything
happens in mount and network namespaces of its own: the machine's namespaces are neither seen nor touched.

  --trials N             how often each operation is measured in each situation (200)
  --situations A,B,...   of present, fresh, recreated, others200, link, iproute2 (all)
  --json FILE            writes all figures and samples
  --check                fails when a limit in scripts/netns-latency/thresholds.json is exceeded
  --check=ratios         the same, but only for misses and ratios to the floor: for noisy machines
  --explain              says what the figures mean and how the JSON is made up (builds first)
  -h, --help             this text

Needs root to measure (asks sudo for it) and cargo to build; other programs that are missing are installed
with apt-get: iproute2, util-linux, a C compiler.
Exit status: 0 measured, 1 a limit is exceeded, 2 could not measure, 130 interrupted.

Examples:
  scripts/netns-latency.sh --check --json latency.json
  scripts/netns-latency.sh --trials 20 --situations fresh,recreated
END
}

say() {
    printf 'netns-latency.sh: %s\n' "$*" >&2
}

fail() {
    say "$@"
    exit 2
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -- "$@"
    fi
}

# The packages whose programs are missing.
missing() {
    # sbin is not on every user's path.
    PATH=$PATH:/usr/sbin:/sbin
    command -v ip >/dev/null || echo iproute2
    for program in unshare nsenter setpriv; do
        command -v "$program" >/dev/null || { echo util-linux && break; }
    done
    # Where there is a compiler without the C library's start files, linking fails too.
    echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null || printf '%s\n' gcc libc6-dev
}

install_missing() {
    packages=$(missing)
    [ -n "$packages" ] || return 0
    # shellcheck disable=SC2086 # a list of words
    set -- $packages
    command -v apt-get >/dev/null || fail "missing, and there is no apt-get to install it: $*"
    say "installing what is missing: $*"
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >&2
}

explain=
for argument in "$@"; do
    case $argument in
        -h | --help)
            usage
            exit 0
            ;;
        --explain) explain=yes ;;
    esac
done

if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "needs root, and there is no sudo: run it as root"
fi
command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
install_missing

manifest=$(dirname -- "$0")/../Cargo.toml
cargo build --release --manifest-path "$manifest" -p tcgui-backend -p netns-latency || fail "the build failed"
target=$(cargo metadata --manifest-path "$manifest" --format-version 1 --no-deps |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
program=$target/release/netns-latency

if [ -n "$explain" ]; then
    exec "$program" --help
elif [ "$(id -u)" -eq 0 ]; then
    PATH=$PATH:/usr/sbin:/sbin exec "$program" "$@"
else
    exec sudo -- "$program" "$@"
fi
