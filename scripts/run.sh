#!/usr/bin/env bash
# run.sh [OPTIONS OF tcgui-backend]
# Installs missing packages, builds a release and runs the daemon. Uses sudo if not root.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-needs.sh cc=build-essential
command -v cargo >/dev/null || {
    echo "run.sh: no cargo: install a Rust toolchain (https://rustup.rs)" >&2
    exit 1
}
daemon=$(scripts/build-release.sh tcgui-backend)
if [ "$(id -u)" -eq 0 ]; then
    exec "$daemon" "$@"
fi
exec sudo --preserve-env=RUST_LOG "$daemon" "$@"
