#!/usr/bin/env bash
# netem-vm.sh [OPTION...] [--] COMMAND [ARGUMENT...]
# Runs a command as root on another kernel: Linux 6.1 with every qdisc, in User Mode Linux; --help says more.
set -uo pipefail

usage() {
    cat <<'END'
Usage: scripts/netem-vm.sh [OPTION...] [--] COMMAND [ARGUMENT...]

Starts User Mode Linux, an ordinary process, runs the command in it and stops it. It sees the files of this
machine, read-only; /tmp, /var/tmp, /run and /dev/shm are empty and its own, so the command must not live
there. Working directory, environment, standard output, standard error and exit status pass through; standard
input is empty. It has one processor, and system calls take about a hundred times as long.

  -m SIZE      memory (512M)
  -t SECONDS   killed after this long (300)
  -w DIR       a directory that the command may write to
  -h, --help   this text

Exit status: that of the command; 125 when the machine could not be started or ended without one. That is a
failure like any other: the command did not run to its end.
Needs: apt-get install --no-install-recommends user-mode-linux busybox-static
END
}

fail() {
    echo "netem-vm.sh: $*" >&2
    exit 125
}

memory=512M
limit=300
writable=
while [ $# -gt 0 ]; do
    case $1 in
    -m) memory=$2 && shift 2 ;;
    -t) limit=$2 && shift 2 ;;
    -w) writable=$(realpath -- "$2") && shift 2 ;;
    -h | --help)
        usage
        exit 0
        ;;
    --)
        shift
        break
        ;;
    -*) fail "unknown option $1, see --help" ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || fail "no command, see --help"

scripts=$(cd -- "$(dirname -- "$0")" && pwd) || fail "cannot find its own directory"
install="apt-get install --no-install-recommends user-mode-linux busybox-static"
kernel=$(command -v linux.uml) || fail "no linux.uml: $install"
busybox=$(command -v busybox) || fail "no busybox: $install"
modules=$(dirname -- "$(dirname -- "$kernel")")/lib/uml/modules
[ -d "$modules" ] || fail "no kernel modules in $modules: $install"

# Both sides see it: the guest finds its command here and leaves its status. So not below /tmp or /run.
exchange=$(mktemp -d /var/lib/netem-vm.XXXXXX) || fail "cannot write to /var/lib"
trap 'rm -rf -- "$exchange"' EXIT
chmod 755 "$exchange"
{
    export -p
    printf 'cd %q || exit 126\nexec' "$PWD"
    printf ' %q' "$@"
    printf '\n'
} >"$exchange/command"

# The guest's terminals 0 and 1 are descriptors 3 and 4, our standard output and error; what the kernel
# says goes to its own log. Its memory is a file in TMPDIR. It ends with this script, however that ends.
settings=(
    "mem=$memory" rootfstype=hostfs rootflags=/ ro "init=$scripts/netem-vm-init" quiet loglevel=1
    con=null ssl=null console=tty2 con2=null,fd:1 con0=null,fd:3 con1=null,fd:4
    "uml_dir=$exchange" umid=vm
    "VM_EXCHANGE=$exchange" "VM_BUSYBOX=$busybox" "VM_MODULES=$modules" "VM_WRITABLE=$writable"
)
TMPDIR=/dev/shm setpriv --pdeathsig TERM -- timeout -k 5 "$limit" "$kernel" "${settings[@]}" \
    </dev/null 3>&1 4>&2 >"$exchange/log" 2>&1
ended=$?
if [ -s "$exchange/status" ]; then
    read -r status <"$exchange/status"
    exit "$status"
fi
tail -n 20 -- "$exchange/log" >&2
[ "$ended" -eq 124 ] && fail "still running after $limit s"
fail "the machine ended ($ended) without a status of the command"
