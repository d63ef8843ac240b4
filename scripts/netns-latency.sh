#!/usr/bin/env bash
# netns-latency.sh [OPTION...]
# Measures how long it takes until a network namespace is known; --help says more.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/netns-latency.sh [OPTION...]

Builds tcgui-backend and the measuring program (release), and measures on this machine how long after its
mount a network namespace is known: to a bare poll on the mount table (the floor), to the watcher, and to
a client of the running daemon on the bus. Takes about five minutes and wants a quiet machine. Everything
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

fail() {
    echo "netns-latency.sh: $*" >&2
    exit 2
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

# sbin is not on every user's path.
PATH=$PATH:/usr/sbin:/sbin
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "needs root, and there is no sudo: run it as root"
    as_root=(sudo --)
fi
# The working directory stays that of the caller: it is where --json FILE goes.
root=$(dirname -- "$0")/..
"$root/scripts/install-needs.sh" cc=build-essential ip=iproute2 \
    unshare=util-linux nsenter=util-linux setpriv=util-linux || fail "something is missing, see above"
command -v cargo >/dev/null || fail "no cargo: install a Rust toolchain (https://rustup.rs)"

cargo build --release --locked --manifest-path "$root/Cargo.toml" -p tcgui-backend -p netns-latency ||
    fail "the build failed"
target=$(cargo metadata --manifest-path "$root/Cargo.toml" --format-version 1 --no-deps |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
program=$target/release/netns-latency

if [ -n "$explain" ]; then
    exec "$program" --help
fi
exec "${as_root[@]}" "$program" "$@"
