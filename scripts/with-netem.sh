#!/usr/bin/env bash
# with-netem.sh [OPTION...] [--] COMMAND [ARGUMENT...]
# Runs a command as root on a kernel that has netem: the kernel of this machine, or one in QEMU. --help explains it.
set -uo pipefail

usage() {
    cat <<'END_OF_HELP'
Usage: scripts/with-netem.sh [OPTION...] [--] COMMAND [ARGUMENT...]
       scripts/with-netem.sh [OPTION...] --choose

Runs a command as root on a kernel with netem. Prints the kernel that it uses on standard error.
It uses the first of these that works:

  host  the kernel of this machine, in private mount, network and process namespaces
  kvm   a Debian kernel in QEMU, on the processor (KVM)
  tcg   a Debian kernel in QEMU, on an emulated processor: works everywhere, about ten times slower

The command sees the files of this machine. It cannot change those of the root file system. /tmp, /var/tmp, /run and
/dev/shm are empty and private, so the program must not be there. The only network interface is lo. The working
directory, environment, standard output, standard error and exit status pass through; standard input is empty.
Processes that the command leaves behind are killed.

  -k, --kernel KIND  Use this kernel: host, kvm or tcg; vm chooses between kvm and tcg.
                     Default: $TCGUI_NETEM_KERNEL, else the first that works
  --load-modules     Permit loading sch_netem and other modules into the kernel of this machine (kernel host).
                     Default: use that kernel only if sch_netem is loaded or built in
  -m, --memory SIZE  Set the memory of the virtual machine (default 1G)
  -t, --time SECONDS Kill the command after this time (default 300)
  -w, --writable DIR Permit the command to write to this directory
  -q, --quiet        Do not print the kernel that is used
  --choose           Run no command. Install the programs for the chosen kernel. Print its kind (host, kvm, tcg) on
                     standard output and the reason on standard error
  -h, --help         Print this text

Exit status: that of the command, or 128 + N after signal N; 125 if it could not be started or did not end in time.

QEMU and the kernel come from Debian packages. The script installs QEMU with apt-get. It downloads the kernel and unpacks it below
the target directory of cargo (CARGO_TARGET_DIR), about 400 MB. It does not install the kernel.

Examples:
  sudo scripts/with-netem.sh -- tc qdisc add dev lo root netem delay 10ms
  sudo scripts/with-netem.sh --kernel tcg -- uname -r
END_OF_HELP
}

fail() {
    echo "with-netem.sh: $*" >&2
    exit 125
}

say() {
    [ -n "$quiet" ] || echo "with-netem.sh: $*" >&2
}

# The interrupt also ends the virtual machine. The trap runs afterwards.
trap 'exit 130' INT

kernel=
memory=1G
limit=300
writable=
quiet=
choose=
load_modules=
while [ $# -gt 0 ]; do
    case $1 in
    -k | --kernel | -m | --memory | -t | --time | -w | --writable)
        [ $# -gt 1 ] || fail "$1 needs a value, see --help"
        ;;&
    -k | --kernel) kernel=$2 && shift 2 ;;
    -m | --memory) memory=$2 && shift 2 ;;
    -t | --time) limit=$2 && shift 2 ;;
    -w | --writable)
        writable=$(realpath -e -- "$2") && [ -d "$writable" ] || fail "not a directory: $2"
        shift 2
        ;;
    -q | --quiet) quiet=yes && shift ;;
    --choose) choose=yes && shift ;;
    --load-modules) load_modules=yes && shift ;;
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
preferred=${TCGUI_NETEM_KERNEL:-auto}
case $preferred in
auto | host | kvm | tcg | vm) ;;
*) fail "TCGUI_NETEM_KERNEL is $preferred, but must be host, kvm, tcg or vm" ;;
esac
case $kernel in
'') kernel=$preferred ;;
auto | host | kvm | tcg) ;;
vm) case $preferred in kvm | tcg) kernel=$preferred ;; esac ;;
*) fail "unknown kernel $kernel: it must be host, kvm, tcg or vm" ;;
esac
[[ $limit =~ ^[1-9][0-9]*$ ]] || fail "not a number of seconds: $limit"
[ $# -gt 0 ] || [ -n "$choose" ] || fail "no command, see --help"
[ "$(id -u)" -eq 0 ] || fail "needs root, for namespaces and the files of this machine: run it with sudo"

# /sbin is not in the PATH of every user.
PATH=$PATH:/usr/sbin:/sbin
root=$(realpath -- "$(dirname -- "$0")/..") || fail "cannot find the directory of the project"
install="$root/scripts/install-needs.sh"
running="Linux $(uname -r)"

# ---- The kernel of this machine -------------------------------------------------------------------------------------

# Prints whether the kernel of this machine has netem: `present`, `loadable` (a module that is not loaded) or `absent`. The module
# is searched first, so that the request does not load it.
host_netem() {
    if [ ! -d /sys/module/sch_netem ] && grep -qs '/sch_netem\.ko' "/lib/modules/$(uname -r)/modules.dep"; then
        echo loadable
    elif unshare --net -- tc qdisc add dev lo root netem >/dev/null 2>&1; then
        echo present
    else
        echo absent
    fi
}

# Runs the command in private namespaces. These and the processes in them end with this script.
run_on_host() {
    local preparation='
        directory=$PWD
        mount --rbind -- "$0" "$0" || exit 125
        mount -o remount,bind,ro / || exit 125
        for own in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$own" || exit 125; done
        mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/lock || exit 125
        ip link set lo up || exit 125
        cd -- "$directory" || exit 126
        "$@"
        exit $?'
    local started=$SECONDS
    setpriv --pdeathsig KILL -- unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private -- \
        timeout --foreground -k 5 "$limit" bash -c "$preparation" "${writable:-/proc}" "$@" </dev/null
    local status=$?
    # 124 is the status of timeout(1), but the command may also return it.
    [ "$status" -ne 124 ] || [ "$((SECONDS - started))" -lt "$limit" ] ||
        fail "the command was still running after $limit s"
    exit "$status"
}

# ---- A kernel in QEMU -----------------------------------------------------------------------------------------------

# Settings for each processor architecture. arm64 has not been tested.
case $(uname -m) in
x86_64)
    qemu=qemu-system-x86_64 qemu_package=qemu-system-x86 board=q35 console=ttyS0
    kernel_package=linux-image-amd64
    ;;
aarch64)
    qemu=qemu-system-aarch64 qemu_package=qemu-system-arm board=virt console=ttyAMA0
    kernel_package=linux-image-arm64
    ;;
*) qemu='' ;;
esac
cache=$(realpath -m -- "${CARGO_TARGET_DIR:-$root/target}")/with-netem

# Installs QEMU, and downloads and unpacks the kernel once. Suites that run at the same time wait for each other.
prepare_vm() {
    [ -n "$qemu" ] || fail "no kernel in QEMU for this processor ($(uname -m)): use a machine whose kernel has netem"
    mkdir -p "$cache" || fail "cannot write to $cache"
    exec {lock}>"$cache/lock" && flock "$lock" || fail "cannot lock $cache"
    "$install" "$qemu=$qemu_package" busybox=busybox-static modprobe=kmod ip=iproute2 setpriv=util-linux >&2 ||
        fail "QEMU is missing, see above"
    [ -e "$cache/complete" ] || unpack_kernel || fail "the kernel of $kernel_package is missing, see above"
    version=$(<"$cache/complete")
    make_initial_files || fail "cannot write to $cache"
    exec {lock}>&-
}

# Prints the name of the package with the newest kernel of the distribution.
kernel_version_package() {
    apt-cache depends "$kernel_package" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# Downloads the package into the working directory. The package list may be missing or outdated.
download_kernel() {
    apt-get download -qq "$(kernel_version_package)" >/dev/null 2>&1 && return
    apt-get update -qq >&2 && apt-get download -qq "$(kernel_version_package)" >&2
}

# Unpacks the kernel. The file `complete` is written last. Without it, the kernel is unpacked again.
unpack_kernel() (
    echo "with-netem.sh: downloading the kernel of $kernel_package" >&2
    rm -rf -- "$cache/new" "$cache/kernel" && mkdir "$cache/new" && cd "$cache/new" &&
        download_kernel && dpkg-deb -x ./*.deb "$cache/kernel" && cd / && rm -rf -- "$cache/new" || exit 1
    # With a merged /usr, packages may contain the modules there.
    [ -d "$cache/kernel/lib/modules" ] ||
        { mkdir -p "$cache/kernel/lib" && mv "$cache/kernel/usr/lib/modules" "$cache/kernel/lib/"; } || exit 1
    version=$(ls "$cache/kernel/lib/modules") && [ -f "$cache/kernel/boot/vmlinuz-$version" ] &&
        depmod -b "$cache/kernel" "$version" && echo "$version" >"$cache/complete"
)

# Copies the modules that are required to mount the files of the host, and lists them in loading order.
copy_modules() {
    local name kind file seen=' '
    for name in virtio_pci 9pnet_virtio 9p virtio_console; do
        modprobe -d "$cache/kernel" -S "$version" --show-depends "$name" || return 1
    done | while read -r kind file _; do
        [ "$kind" = insmod ] || continue
        case $seen in *" $file "*) continue ;; esac
        seen+="$file "
        cp "$file" "$1/" && basename "$file" || return 1
    done >"$1/order"
}

# Creates the initial file system: busybox, and the modules that are required to mount the files of the host.
make_initial_files() (
    files=$cache/initial-files
    rm -rf -- "$files" && mkdir -p "$files/modules" &&
        cp "$root/scripts/with-netem/init" "$root/scripts/with-netem/command-runner" "$(command -v busybox)" "$files/" &&
        chmod 755 "$files"/* && copy_modules "$files/modules" &&
        printf '%s\n' "$cache/kernel" >"$files/modules/directory" && cd "$files" &&
        find . | busybox cpio -o -H newc >"$cache/initial-files.new" 2>/dev/null &&
        mv "$cache/initial-files.new" "$cache/initial-files.cpio"
)

# Runs the command in QEMU with an accelerator (kvm or tcg) and returns its exit status, or 125.
run_in_qemu() {
    local accelerator=$1 seconds=$2 processor status=
    shift 2
    case $accelerator in
    kvm) processor=host ;;
    tcg) accelerator=tcg,thread=multi processor=max ;;
    esac
    # Unlink these files, so that nothing is left behind if this script is killed.
    local file
    file=$(mktemp "$cache/log.XXXXXX") && exec {log}<"$file" {log_in}>"$file" && rm -- "$file" ||
        fail "cannot write to $cache"
    file=$(mktemp "$cache/status.XXXXXX") && exec {result}<"$file" {result_in}>"$file" && rm -- "$file" ||
        fail "cannot write to $cache"
    # QEMU reopens its output files, which is not possible with a socket. Therefore pipes are in between.
    exec {out}> >(exec cat) && local out_pid=$!
    exec {err}> >(exec cat >&2) && local err_pid=$!
    local command
    command=$(
        export -p
        printf 'cd -- %q || exit 126\nexec' "$PWD"
        printf ' %q' "$@"
    )
    local bytes
    bytes=$(printf '%s\n' "$command" | wc -c)
    local settings=(
        -M "$board" -accel "$accelerator" -cpu "$processor" -smp "$(nproc)" -m "$memory"
        -nodefaults -no-user-config -nographic -no-reboot
        -kernel "$cache/kernel/boot/vmlinuz-$version" -initrd "$cache/initial-files.cpio"
        -append "console=$console quiet loglevel=4 nokaslr mitigations=off random.trust_cpu=on panic=-1"
        -add-fd "fd=$log_in,set=1" -chardev file,id=log,path=/dev/fdset/1,append=on -serial chardev:log
        -device virtio-serial-pci
        -chardev stdio,id=command,signal=off -device virtserialport,chardev=command,name=command
        -add-fd "fd=$result_in,set=4" -chardev file,id=status,path=/dev/fdset/4,append=on
        -device virtserialport,chardev=status,name=status
        -add-fd "fd=$out,set=2" -chardev file,id=stdout,path=/dev/fdset/2,append=on
        -device virtserialport,chardev=stdout,name=stdout
        -add-fd "fd=$err,set=3" -chardev file,id=stderr,path=/dev/fdset/3,append=on
        -device virtserialport,chardev=stderr,name=stderr
        -fsdev local,id=root,path=/,readonly=on,security_model=none,multidevs=remap
        -device virtio-9p-pci,fsdev=root,mount_tag=root
    )
    [ -z "$writable" ] || settings+=(
        -fsdev "local,id=writable,path=$writable,security_model=none,multidevs=remap"
        -device virtio-9p-pci,fsdev=writable,mount_tag=writable
    )
    # The virtual machine ends with this script in every case.
    setpriv --pdeathsig TERM -- timeout --foreground -k 2 "$seconds" setpriv --pdeathsig KILL -- "$qemu" "${settings[@]}" \
        <<<"$(printf '%s %s\n%s' "$bytes" "$writable" "$command")" >&"$log_in" 2>&1
    local ended=$?
    exec {out}>&- {err}>&- {result_in}>&- {log_in}>&-
    wait "$out_pid" "$err_pid"
    read -r -u "$result" status
    if [ -n "$status" ]; then
        exec {log}<&- {result}<&-
        return "$status"
    fi
    if [ "$ended" -eq 124 ]; then
        echo "with-netem.sh: the command was still running after $seconds s" >&2
    else
        echo "with-netem.sh: the virtual machine ended ($ended) without a status of the command. Its last messages:" >&2
    fi
    tail -n 20 <&"$log" >&2
    exec {log}<&- {result}<&-
    return 125
}

# Returns whether KVM works. Opening /dev/kvm does not prove that, so a machine is started. The result is kept until the next
# boot. A failure may have had another reason, so `--kernel kvm` tries again.
kvm_works() {
    [ -w /dev/kvm ] || return 1
    local boot
    boot=$(</proc/sys/kernel/random/boot_id)
    case $(cat "$cache/kvm" 2>/dev/null) in
    "$boot yes") return 0 ;;
    "$boot no") [ "$kernel" = kvm ] || return 1 ;;
    esac
    local works=no
    run_in_qemu kvm 20 true >/dev/null 2>&1 && works=yes
    echo "$boot $works" >"$cache/kvm"
    [ "$works" = yes ]
}

# ---- The choice -----------------------------------------------------------------------------------------------------

because=
if [ "$kernel" = auto ] || [ "$kernel" = host ]; then
    "$install" tc=iproute2 unshare=util-linux setpriv=util-linux >&2 || fail "a program is missing, see above"
    netem=$(host_netem)
    if [ "$netem" = loadable ] && [ -n "$load_modules" ]; then
        say "loading sch_netem into the kernel of this machine, and other modules when the command needs them." \
            "They stay until the next boot"
        modprobe sch_netem >&2 && netem=$(host_netem)
    fi
    case $kernel,$netem in
    *,present) kernel=host because="it has netem" ;;
    host,loadable) fail "sch_netem is not loaded: permit it with --load-modules, or choose --kernel vm" ;;
    host,absent) fail "the kernel of this machine ($running) has no sch_netem: choose --kernel vm" ;;
    auto,loadable) kernel=vm because="sch_netem is not loaded in the kernel of this machine; see --load-modules" ;;
    auto,absent) kernel=vm because="the kernel of this machine, $running, has no sch_netem" ;;
    esac
fi
if [ "$kernel" != host ]; then
    prepare_vm
    case $kernel in
    kvm) kvm_works || fail "KVM does not work on this machine: choose --kernel tcg" ;;
    vm) kvm_works && kernel=kvm || kernel=tcg because="${because:+$because; }KVM does not work here" ;;
    esac
fi
because=${because:+ ($because)}
case $kernel in
host) say "kernel host: $running$because" ;;
*) say "kernel $kernel: Linux $version in QEMU$because" ;;
esac
if [ -n "$choose" ]; then
    echo "$kernel"
    exit 0
fi
[ "$kernel" != host ] || run_on_host "$@"
run_in_qemu "$kernel" "$limit" "$@"
