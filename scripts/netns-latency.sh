#!/usr/bin/env bash
# netns-latency.sh [OPTION...]
# Measures the time from a change of a network namespace to the list of a client. --help explains it.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/netns-latency.sh [OPTION...]

Builds tcgui-backend and the measuring program (release). Then measures how long after its mount a network namespace is known: to a bare poll on
the mount table (the floor), to the watcher, and to a client of the running daemon on the bus. Needs about fifteen minutes and a quiet machine. Runs in
its own mount and network namespaces and does not change the machine. Only the situation `process` runs in the machine's network namespace and sees its
processes.

  --trials N             Set the number of measurements of each operation in each situation (200)
  --situations A,B,...   Measure these of the situations below (all)
  --json FILE            Write all figures and samples
  --svg FILE             Draw the cumulative distributions
  --markdown FILE        Write the tables of docs/measurements.md
  --baseline FILE        Print the comparison with an earlier --json. Never changes the exit status, because machines and loads differ
  --from FILE            Print, check, draw and compare the figures of an earlier --json, without a measurement
  --check                Fail if a limit in scripts/netns-latency/thresholds.json is exceeded
  --check=ratios         Check only misses and ratios to the floor: for noisy machines
  --explain              Print the meaning of the figures and the format of the JSON (builds first)
  -h, --help             Print this text

Situations:
  present      the netns directory exists
  fresh        the netns directory does not exist, as after boot: the first `ip netns add` makes it
  recreated    the netns directory is removed and recreated at once
  others200    200 other namespaces exist
  others1000   1000 other namespaces exist; operations in one lab are 100 ms apart, as in all situations
  link         a link is created, brought up and deleted inside a namespace
  iproute2     the real `ip netns add` and `del`
  burst1000    1000 namespaces are created, and removed, at once: the time from the last one until all are seen, and the
               number of lists beyond the ten that may follow at once; one trial for each 20 of --trials
  sequence     ten changes 5 ms apart, without waiting for the list: five times, a namespace is deleted and another one
               created
  degraded     no inotify, in a user namespace with limits of 0: the mount table still notifies
  silent       no doorbell: only the sweep of each second finds the namespace; one trial for each 10
  process      a program in a namespace without a name; the kernel announces the program
  unannounced  the same without an announcement, so that the sweep of each second finds it; one trial for each 10
  moved        the same, but a link moves to the program, and the kernel announces this
  docker       a container of dockerd, from its event `start` or `die`; one trial for each 10
  podman       the same with podman

Needs root to measure (uses sudo) and cargo to build. Installs missing programs with apt-get: iproute2, util-linux, a C compiler; for the situations
docker and podman also docker.io (which may start its service), podman, runc, iptables, busybox-static.

Exit status: 0 measured, 1 a limit is exceeded, 2 could not measure, 130 interrupted.

Examples:
  scripts/netns-latency.sh --check --json latency.json
  scripts/netns-latency.sh --trials 20 --situations fresh,recreated
  scripts/netns-latency.sh --baseline latency.json
  scripts/netns-latency.sh --from latency.json --svg latency.svg --markdown latency.md
END
}

fail() {
    echo "netns-latency.sh: $*" >&2
    exit 2
}

explain=
situations=docker,podman # of all, those that need more than the others
previous=
for argument in "$@"; do
    case $argument in
    -h | --help)
        usage
        exit 0
        ;;
    --explain) explain=yes ;;
    --situations=*) situations=${argument#*=} ;;
    esac
    [ "$previous" != --situations ] || situations=$argument
    previous=$argument
done
engines=()
case ,$situations, in
*,docker,* | *,podman,*)
    engines=(dockerd=docker.io docker=docker.io podman=podman runc=runc iptables=iptables busybox=busybox-static)
    ;;
esac

# /sbin is not in the PATH of every user.
PATH=$PATH:/usr/sbin:/sbin
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "needs root, and there is no sudo: run it as root"
    as_root=(sudo --)
fi
# Keep the working directory of the caller, because --json FILE is relative to it.
root=$(dirname -- "$0")/..
"$root/scripts/install-needs.sh" cc=build-essential ip=iproute2 \
    unshare=util-linux nsenter=util-linux setpriv=util-linux "${engines[@]}" || fail "something is missing, see above"
command -v cargo >/dev/null || fail "no cargo: install a Rust toolchain (https://rustup.rs)"

program=$("$root/scripts/build-release.sh" netns-latency) || fail "the build failed"

if [ -n "$explain" ]; then
    exec "$program" --help
fi
exec "${as_root[@]}" "$program" "$@"
