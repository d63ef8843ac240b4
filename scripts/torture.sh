#!/usr/bin/env bash
# torture.sh [OPTION...]
# Random work on the netns directory, from seeds: what is listed must be what is. --help says more.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/torture.sh [OPTION...]

Adds, deletes, attaches, binds, unmounts, renames, covers and removes network namespaces and what is around
them at random, freezes the daemon now and then, and compares what it publishes with what the kernel has. All
of it happens in mount and network namespaces of its own. On failure it prints the seed and the shortest
beginning of its work that still fails.

  --seeds N     how many seeds (10)
  --seconds N   how long each of them works (10)
  --seed N      this seed only, as a failure printed it
  -h, --help    this text

Needs root. Exit status: 0 when every seed ended with the truth.
END
}

fail() {
    echo "torture.sh: $*, see --help" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --seeds | --seconds | --seed)
        [[ ${2-} =~ ^[0-9]+$ ]] || fail "$1 takes a number"
        name=${1#--}
        export "TCGUI_TORTURE_${name^^}=$2"
        shift 2
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "unknown option $1" ;;
    esac
done

exec "$(dirname -- "$0")/test.sh" --test torture -- row_20
