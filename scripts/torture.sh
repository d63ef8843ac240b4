#!/usr/bin/env bash
# torture.sh [OPTION...]
# Changes the netns directory at random and compares the published list with the kernel. --help explains it.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/torture.sh [OPTION...]

Adds, deletes, attaches, binds, unmounts, renames, covers and removes network namespaces and the directories around them at random. Sometimes freezes
the daemon. Then compares the published list with the state of the kernel. Runs in its own mount and network namespaces. After a failure, prints the seed and
the shortest beginning of its operations that still fails.

  --seeds N     Set the number of seeds (10)
  --seconds N   Set the duration of each seed (10)
  --seed N      Run only this seed, for example the one that a failure printed
  -h, --help    Print this text

Needs root. Exit status: 0 if the list was correct for every seed.
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
