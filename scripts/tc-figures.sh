#!/usr/bin/env bash
# tc-figures.sh [OPTION...]
# Measures what impairing, switching and watching interfaces costs, and how true netem is; --help says more.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/tc-figures.sh [OPTION...]

Builds tcgui-backend and the measuring program (release), and measures on this machine: an Apply against
the bare netlink requests, bursts, Enable and Disable, what a diagnostics run holds up, the cost of counters
and rates, and what becomes of packets. Takes about ten minutes and wants a quiet machine. Parts that need
netem run on the kernel that scripts/with-netem.sh chooses, the others in private mount and network namespaces: the
namespaces and links of the machine are neither seen nor touched.

  --parts A,B,...   of apply, burst, switch, diagnostics, bandwidth, fidelity (all)
  --trials N        how often each time is taken (200)
  --json FILE       writes all figures and samples
  --baseline FILE   shows the figures of an earlier --json beside the new ones
  --check           fails when a limit in scripts/tc-figures/thresholds.json is exceeded
  --check=steady    the same, but only for limits that hold on a busy machine
  --explain         says what the parts are and how the JSON is made up (builds first)
  -h, --help        this text

Needs root to measure (asks sudo for it), and cargo to build into a directory outside /tmp, /run and /dev/shm;
other programs that are missing are installed with apt-get: iproute2, util-linux, a C compiler, and QEMU if the kernel of
this machine has no netem.
Exit status: 0 measured, 1 a limit is exceeded, 2 could not measure, 130 interrupted.

Examples:
  scripts/tc-figures.sh --check --json figures.json
  scripts/tc-figures.sh --baseline figures.json --parts apply,burst
  scripts/tc-figures.sh --trials 20 --check=steady
END
}

fail() {
    echo "tc-figures.sh: $*" >&2
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
# The working directory stays that of the caller: it is where files of options are.
root=$(dirname -- "$0")/..
"$root/scripts/install-needs.sh" cc=build-essential ip=iproute2 unshare=util-linux setpriv=util-linux || fail "something is missing, see above"
command -v cargo >/dev/null || fail "no cargo: install a Rust toolchain (https://rustup.rs)"

program=$("$root/scripts/build-release.sh" tc-figures) || fail "the build failed"

if [ -n "$explain" ]; then
    exec "$program" --help
fi
exec "${as_root[@]}" "$program" "$@"
