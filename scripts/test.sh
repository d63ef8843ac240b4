#!/usr/bin/env bash
# test.sh [ARGUMENTS OF cargo test]
# Installs what the tests need and runs them all: units and properties, then the daemon end to end over
# the real kernel and bus, each test in a mount and network namespace of its own, and a slice of it on
# another kernel in User Mode Linux, and with real Docker and Podman. Needs root for those. Takes about a
# quarter of an hour, half of it building.
set -euo pipefail
cd "$(dirname "$0")/.."

# sbin is not on every user's path.
PATH=$PATH:/usr/sbin:/sbin
scripts/install-needs.sh cc=build-essential ip=iproute2 unshare=util-linux setpriv=util-linux \
    linux.uml=user-mode-linux busybox=busybox-static \
    dockerd=docker.io docker=docker.io podman=podman runc=runc iptables=iptables perl=perl-base
if [ "$(id -u)" -ne 0 ]; then
    echo "test.sh: the end-to-end tests make namespaces: run as root (sudo -E scripts/test.sh)" >&2
    exit 1
fi
# The suites start the built daemon, which is of the same profile and features as they are.
cargo build --locked --workspace --all-targets
# The watcher alone, as others use it: without the bus, the kernel's codecs or the command line.
cargo build --locked -p tcgui-backend --no-default-features --example watch_namespaces
exec cargo test --locked --workspace "$@"
