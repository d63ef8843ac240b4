#!/usr/bin/env bash
# install-needs.sh COMMAND[=PACKAGE]...
# Installs the Debian package of every missing command (PACKAGE defaults to COMMAND). Uses sudo if not root.
# Prints what it installs. Prints nothing if all commands exist.
set -euo pipefail

missing=()
for need in "$@"; do
    command -v "${need%%=*}" >/dev/null || missing+=("${need##*=}")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "install-needs: please install: ${missing[*]} (no apt-get here)" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "install-needs: ${missing[*]} missing: run as root, or install sudo" >&2
        exit 1
    }
    as_root=(sudo)
fi
echo "install-needs: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
