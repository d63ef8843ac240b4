#!/usr/bin/env bash
# test-unit.sh [PROGRAM | PACKAGE.deb]
# Runs the packaged unit under a real systemd, in a container of systemd-nspawn. --help explains it.
set -euo pipefail

usage() {
    cat <<'END_OF_HELP'
Usage: sudo -E scripts/test-unit.sh [PROGRAM | PACKAGE.deb]

Boots systemd in a container whose root directory is a throw-away copy of that of this machine. Installs PROGRAM (by default
target/debug/tcgui-backend) and the packaged unit there, and checks the unit: readiness, the watchdog, the sandbox, the restart
after a crash, and the stop. With a Debian package, installs that instead, and also checks an upgrade and a purge. Prints one
line for each check. Changes nothing outside the container.

Needs root. Installs systemd-container with apt-get.
Exit status: 0: all checks passed; 1: a check failed; 77: not run, because this machine cannot start the container.
END_OF_HELP
}

# The checks, which run inside the container.
inside() {
    failed=0
    check() {
        local what=$1
        shift
        if "$@" >/tmp/check.log 2>&1; then
            echo "ok      $what"
        else
            echo "FAILED  $what"
            sed 's/^/        /' /tmp/check.log
            failed=1
        fi
    }
    value() { systemctl show tcgui-backend --property "$1" --value; }
    # Without a daemon, the command scans the host, and prints no name of a backend.
    listed() { tcgui-backend namespaces --json | grep '"backend":"default"' | grep -q "\"name\":\"$1\""; }
    # Runs a program with the sandbox of the unit.
    refuses_mount_namespaces() {
        sed 's|^ExecStart=.*|ExecStart=/usr/bin/unshare --mount /bin/true|; /^ExecStartPre=/d; /^ExecStopPost=/d; /^Restart/d; s/^Type=.*/Type=exec/' \
            "$(systemctl show tcgui-backend --property FragmentPath --value)" >/run/systemd/system/other.service
        systemctl daemon-reload
        systemctl start other
        eventually test "$(systemctl show other --property Result --value)" = exit-code
    }
    eventually() {
        local end=$((SECONDS + 30))
        until "$@"; do
            [ "$SECONDS" -lt "$end" ] || return 1
            sleep 0.2
        done
    }
    is_restarted() { [ "$(value MainPID)" != "$1" ] && [ "$(value SubState)" = running ]; }
    restarts_after() {
        local pid
        pid=$(value MainPID)
        kill "-$1" "$pid"
        eventually is_restarted "$pid"
    }

    if [ -e /test.deb ]; then
        check "the package is installed" dpkg -i /test.deb
        check "the unit is installed disabled" test "$(systemctl is-enabled tcgui-backend)" = disabled
        check "the unit is not started" test "$(value ActiveState)" = inactive
    fi
    ip netns add before
    check "the unit starts" systemctl start tcgui-backend
    check "it is ready" test "$(value ActiveState)" = active
    check "a namespace that existed before is listed when it is ready" listed before
    check "the status has the counts" grep -q 'network namespaces' <<<"$(value StatusText)"
    pid=$(value MainPID)
    check "its mount namespace is that of PID 1" test "$(readlink "/proc/$pid/ns/mnt")" = "$(readlink /proc/1/ns/mnt)"
    check "its system calls are filtered" grep -q '^Seccomp:[[:space:]]*2' "/proc/$pid/status"
    check "it has no other capabilities than it needs" grep -qx 'CapEff:[[:space:]]*0000000000283804' "/proc/$pid/status"
    check "ExecStartPre= has run" grep -q 'status=0' <<<"$(value ExecStartPre)"
    ip netns add after
    check "a namespace that is made afterwards is listed" eventually listed after
    ip -n after link add v0 type veth peer name v1
    check "an interface that is made there is listed" eventually listed v0
    check "no system call was refused" bash -c '! journalctl -u tcgui-backend | grep -i "not permitted"'
    # With this option, the daemon enters each namespace to read its interfaces.
    printf '[Service]\nEnvironment=TCGUI_OPTIONS=--no-namespace-ids\n' >/etc/systemd/system/tcgui-backend.service.d/options.conf
    systemctl daemon-reload
    check "it starts with options from a drop-in" systemctl restart tcgui-backend
    check "it may enter network namespaces" eventually listed v0
    check "it may not enter other namespaces" refuses_mount_namespaces
    check "systemd restarts it after SIGKILL" restarts_after KILL
    check "the watchdog restarts it after SIGSTOP" restarts_after STOP
    check "the journal names the watchdog" bash -c 'journalctl -u tcgui-backend | grep -qi "watchdog timeout"'
    check "the namespaces are listed again" eventually listed after
    if [ -e /test.deb ]; then
        pid=$(value MainPID)
        echo kept >/var/lib/tcgui/kept
        check "an upgrade is installed" dpkg -i /test.deb
        check "it restarted the daemon" is_restarted "$pid"
        check "it kept the state directory" test -e /var/lib/tcgui/kept
        check "it kept the unit disabled" test "$(systemctl is-enabled tcgui-backend)" = disabled
    fi
    check "the unit stops" systemctl stop tcgui-backend
    check "it stopped in order" test "$(value Result)" = success
    if [ -e /test.deb ]; then
        systemctl start tcgui-backend
        check "a removal is done while it runs" dpkg -r tcgui-backend
        check "it stopped the daemon" bash -c "! pgrep -x tcgui-backend"
        check "it kept the state directory too" test -e /var/lib/tcgui/kept
        check "a purge is done" dpkg -P tcgui-backend
        for path in /var/lib/tcgui /etc/tcgui /usr/share/tcgui /usr/bin/tcgui-backend /usr/lib/systemd/system/tcgui-backend.service; do
            check "the purge removed $path" test ! -e "$path"
        done
    fi
    if [ "$failed" -ne 0 ]; then
        journalctl -u tcgui-backend --no-pager | tail -60
    fi
    exit "$failed"
}

case ${1-} in
-h | --help)
    usage
    exit 0
    ;;
--inside) inside ;;
esac
cd "$(dirname "$0")/.."
program=$(realpath "${1-target/debug/tcgui-backend}")
not_run() {
    echo "test-unit.sh: not run: $1" >&2
    exit 77
}
[ "$(id -u)" -eq 0 ] || not_run "needs root (sudo -E scripts/test-unit.sh)"
[ -r "$program" ] || not_run "no program $program: run cargo build first"
scripts/install-needs.sh systemd-nspawn=systemd-container ip=iproute2

# A private mount namespace: all mounts below end with this script.
if [ -z "${TCGUI_UNIT_MOUNTS-}" ]; then
    TCGUI_UNIT_MOUNTS=$(mktemp -d)
    export TCGUI_UNIT_MOUNTS
    trap 'rmdir "$TCGUI_UNIT_MOUNTS"' EXIT
    unshare -m --propagation private "scripts/$(basename "$0")" "$program"
    exit
fi
room=$TCGUI_UNIT_MOUNTS
mount -t tmpfs tmpfs "$room"
# systemd-nspawn keeps locks in /run.
mount -t tmpfs tmpfs /run
mkdir "$room"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$room/upper,workdir=$room/work" "$room/root" ||
    not_run "overlayfs cannot be mounted"
root=$room/root
rm -rf "$root/var/lib/tcgui" "$root/etc/tcgui"
units=$root/etc/systemd/system
case $program in
*.deb) cp "$program" "$root/test.deb" ;;
*)
    install -D "$program" "$root/usr/bin/tcgui-backend"
    install -m 644 tcgui-backend/assets/packaging/tcgui-backend.service "$units/"
    ;;
esac
install -m 755 "scripts/$(basename "$0")" "$root/usr/local/bin/test-unit"
# A shorter watchdog saves time. The other settings stay.
mkdir -p "$units/tcgui-backend.service.d"
printf '[Service]\nWatchdogSec=3s\n' >"$units/tcgui-backend.service.d/watchdog.conf"
cat >"$units/test-unit.target" <<'END'
[Unit]
Description=Only the checks
Requires=basic.target test-unit.service
After=basic.target
AllowIsolate=yes
END
cat >"$units/test-unit.service" <<'END'
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/usr/local/bin/test-unit --inside >/test-unit.log 2>&1; echo $? >/test-unit.status; systemctl poweroff'
END
timeout --kill-after=5 300 systemd-nspawn --quiet --directory "$root" --boot --private-network --register=no --keep-unit \
    --capability=all --console=pipe --machine "tcgui-unit-$$" systemd.unit=test-unit.target </dev/null >"$room/boot.log" 2>&1 || true
if [ ! -s "$root/test-unit.status" ]; then
    tail -20 "$room/boot.log" "$root/test-unit.log" 2>/dev/null >&2 || true
    not_run "systemd did not boot in the container"
fi
cat "$root/test-unit.log"
exit "$(cat "$root/test-unit.status")"
