#!/usr/bin/env bash
# test.sh [OPTION...] [ARGUMENTS OF cargo test]
# Installs what the tests need, builds everything and runs all tests. --help explains it.
set -euo pipefail

usage() {
    cat <<'END_OF_HELP'
Usage: sudo -E scripts/test.sh [OPTION...] [ARGUMENTS OF cargo test]

Installs what the tests need, builds the workspace and runs the tests: unit tests and property tests, then the daemon end
to end on the real kernel and bus. Each end-to-end test has private mount and network namespaces. Some suites start Docker
and Podman in them. Your network, your /run/netns and your containers are not touched.

Some suites need a kernel with netem. scripts/with-netem.sh chooses it: the kernel of this machine if it has netem or can
load it, else a Debian kernel in QEMU. This script prints the choice and its reason first. Two suites always use QEMU: they
need an older kernel, or one without netem. If the kernel of this machine has netem and QEMU is not installed, the script
lists these suites as not run.

  --kernel KIND  Use this kernel: host, kvm or tcg (default: $TCGUI_NETEM_KERNEL, else the first that works)
  --vm           Install QEMU and run all suites, also if the kernel of this machine has netem
  -h, --help     Print this text

Needs root and a Rust toolchain. Installs programs with apt-get.

Examples:
  sudo -E scripts/test.sh
  sudo -E scripts/test.sh --test netem
  sudo -E scripts/test.sh --kernel tcg --test netem -- frontends_run_scenarios
END_OF_HELP
}

kernel=(--load-modules)
vm=
while [ $# -gt 0 ]; do
    case $1 in
    --kernel)
        [ $# -gt 1 ] || { echo "test.sh: --kernel needs a value, see --help" >&2 && exit 2; }
        kernel+=(--kernel "$2")
        shift 2
        ;;
    --vm) vm=yes && shift ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) break ;;
    esac
done
cd "$(dirname "$0")/.."

# /sbin is not in the PATH of every user.
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" -ne 0 ]; then
    echo "test.sh: the end-to-end tests make namespaces: run as root (sudo -E scripts/test.sh)" >&2
    exit 1
fi
command -v cargo >/dev/null || {
    echo "test.sh: no cargo: install a Rust toolchain (https://rustup.rs), or keep your PATH: sudo -E env \"PATH=\$PATH\" scripts/test.sh" >&2
    exit 1
}
scripts/install-needs.sh cc=build-essential ip=iproute2 unshare=util-linux setpriv=util-linux \
    dockerd=docker.io docker=docker.io podman=podman runc=runc iptables=iptables perl=perl-base busybox=busybox-static
TCGUI_NETEM_KERNEL=$(scripts/with-netem.sh "${kernel[@]}" --choose)
export TCGUI_NETEM_KERNEL

# Tests with these names use a virtual machine on every machine.
skipped=()
if [ "$TCGUI_NETEM_KERNEL" = host ] && [ -z "$vm" ] && ! compgen -c | grep -q '^qemu-system-'; then
    skipped=(--skip in_a_vm)
fi

# The suites start the built daemon, which must have the same profile and features as they.
cargo build --locked --workspace --all-targets
# Build the watcher alone, as other programs use it: without the bus, the kernel's codecs and the command line.
cargo build --locked -p tcgui-backend --no-default-features --example watch_namespaces
run() {
    case " $* " in
    *" -- "*) cargo test --locked --workspace "$@" "${skipped[@]}" ;;
    *) cargo test --locked --workspace "$@" -- "${skipped[@]}" ;;
    esac
}
# End-to-end tests mostly wait. Therefore more of them run at the same time than there are processors.
at_once=$((3 * $(nproc)))
if [ $# -gt 0 ]; then
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$at_once} run "$@"
else
    # Run all suites even if one has failed, so that one run shows all failures.
    run --lib --bins --no-fail-fast
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$at_once} run --test '*' --no-fail-fast
    cargo test --locked --workspace --doc
fi
if [ "${#skipped[@]}" -gt 0 ]; then
    echo "test.sh: not run: tests named *_in_a_vm, because QEMU is not installed; --vm installs it and runs them" >&2
fi
