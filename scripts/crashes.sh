#!/usr/bin/env bash
# crashes.sh [OPTION...]
# Kills the daemon at random moments and checks that no impairment is left behind or lost. --help explains it.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/crashes.sh [OPTION...]

Impairs two interfaces in private namespaces, one for a short and one for a long time. Kills the daemon (SIGKILL) at a random
moment, starts it again, and compares the interfaces with the replies. Does the same while rate limits change, and checks that
the qdiscs are as before the change or as after it. After a failure, prints the seed. Uses a kernel with netem;
see scripts/with-netem.sh --help.

  --crashes N   Set the number of crashes (default 200)
  -h, --help    Print this text

Needs root. Exit status: 0 if no impairment was left behind and none was lost.
END
}

fail() {
    echo "crashes.sh: $*, see --help" >&2
    exit 2
}

export TCGUI_CRASHES=200
while [ $# -gt 0 ]; do
    case $1 in
    --crashes)
        [[ ${2-} =~ ^[0-9]+$ ]] || fail "$1 takes a number"
        TCGUI_CRASHES=$2
        shift 2
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "unknown option $1" ;;
    esac
done

exec "$(dirname -- "$0")/test.sh" --test netem -- leases_after_crashes
