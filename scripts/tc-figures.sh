#!/usr/bin/env bash
# tc-figures.sh [OPTION...]
# Measures the cost of impairing, switching and watching interfaces, and the accuracy of netem. --help explains it.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/tc-figures.sh [OPTION...]

Builds tcgui-backend and the measuring program (release). Then measures on this machine: an Apply compared with the bare netlink requests, bursts,
Enable and Disable, the delay that a diagnostics run causes, the cost of counters and rates, and the packets behind a netem. Needs about twenty minutes
and a quiet machine. Parts that need netem run on the kernel that scripts/with-netem.sh chooses. The other parts run in private mount and network namespaces. The
namespaces and links of the machine are neither seen nor changed.

  --parts A,B,...   Measure these parts: apply, burst, switch, diagnostics, bandwidth, fidelity, rates,
                    presets (all)
  --trials N        Set the number of measurements of each time (200)
  --json FILE       Write all figures and samples
  --baseline FILE   Print the figures of an earlier --json beside the new ones
  --check           Fail if a limit in scripts/tc-figures/thresholds.json is exceeded
  --check=steady    Check only the limits that also hold on a busy machine
  --explain         Print the parts and the format of the JSON (builds first)
  -h, --help        Print this text

Needs root to measure (uses sudo), and cargo to build into a directory outside /tmp, /run and /dev/shm. Installs missing programs with apt-get:
iproute2, util-linux, a C compiler, and QEMU if the kernel of this machine has no netem.

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

# /sbin is not in the PATH of every user.
PATH=$PATH:/usr/sbin:/sbin
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "needs root, and there is no sudo: run it as root"
    as_root=(sudo --)
fi
# Keep the working directory of the caller, because the files of options are relative to it.
root=$(dirname -- "$0")/..
"$root/scripts/install-needs.sh" cc=build-essential ip=iproute2 unshare=util-linux setpriv=util-linux || fail "something is missing, see above"
command -v cargo >/dev/null || fail "no cargo: install a Rust toolchain (https://rustup.rs)"

program=$("$root/scripts/build-release.sh" tc-figures) || fail "the build failed"

if [ -n "$explain" ]; then
    exec "$program" --help
fi
exec "${as_root[@]}" "$program" "$@"
