#!/usr/bin/env bash
# netns-latency.sh [OPTION...]
# Measures how long it takes until a network namespace is known; --help says more.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/netns-latency.sh [OPTION...]

Builds tcgui-backend and the measuring program (release), and measures on this machine how long after its
mount a network namespace is known: to a bare poll on the mount table (the floor), to the watcher, and to
a client of the running daemon on the bus. Takes about twelve minutes and wants a quiet machine. Everything
happens in mount and network namespaces of its own: nothing of the machine is touched. Only the situation
`process` runs in its network namespace and sees its processes.

  --trials N             how often each operation is measured in each situation (200)
  --situations A,B,...   of the following (all)
  --json FILE            writes all figures and samples
  --svg FILE             draws the cumulative distributions
  --markdown FILE        writes the tables of docs/namespace-discovery.md
  --baseline FILE        prints how the figures compare with those of an earlier --json
  --from FILE            measures nothing: prints, checks, draws, compares the figures of an earlier --json
  --check                fails when a limit in scripts/netns-latency/thresholds.json is exceeded
  --check=ratios         the same, but only for misses and ratios to the floor: for noisy machines
  --explain              says what the figures mean and how the JSON is made up (builds first)
  -h, --help             this text

Situations:
  present      the netns directory is there
  fresh        it is not, as on a fresh boot: the first `ip netns add` makes it
  recreated    it is removed and made anew in one breath
  others200    200 other namespaces exist
  others1000   1000 others exist; operations in one lab are 100 ms apart, as everywhere
  link         a link made, brought up and deleted inside a namespace
  iproute2     the real `ip netns add` and `del`
  burst1000    1000 made, and removed, at once: from the last until all are seen, and how many lists
               that takes; one trial for each 20 of --trials
  degraded     no inotify, in a user namespace whose limits are 0: the mount table still rings
  silent       nothing rings at all, only a sweep of each second finds it; one trial for each 10
  process      a program in a namespace without a name; the kernel announces the program
  unannounced  the same where it does not, so that a sweep of each second finds it; one trial for each 10
  moved        the same, but a link moves to the program, of which the kernel tells
  docker       a container of dockerd, from its event `start` or `die`; one trial for each 10
  podman       the same of podman

--baseline never changes the exit status, whatever it finds: machines and loads differ.

Needs root to measure (asks sudo for it) and cargo to build; other programs that are missing are installed
with apt-get: iproute2, util-linux, a C compiler; for the situations docker
and podman docker.io (which may start its service), podman, runc, iptables, busybox-static.
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
    unshare=util-linux nsenter=util-linux setpriv=util-linux "${engines[@]}" || fail "something is missing, see above"
command -v cargo >/dev/null || fail "no cargo: install a Rust toolchain (https://rustup.rs)"

program=$("$root/scripts/build-release.sh" netns-latency) || fail "the build failed"

if [ -n "$explain" ]; then
    exec "$program" --help
fi
exec "${as_root[@]}" "$program" "$@"
