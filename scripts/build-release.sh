#!/usr/bin/env bash
# build-release.sh PROGRAM
# Builds the daemon and a program of the workspace with the release profile, and prints the path of the program.
set -euo pipefail
# Cargo reads .cargo/config.toml from the working directory upwards.
cd "$(dirname "$0")/.."

# Cargo compiles a dependency again if other packages of the same build need other features of it. Therefore tcgui-tests is always
# selected: it needs all features that the programs in scripts/ need. .ci/run checks that.
selected=(-p tcgui-backend -p tcgui-tests --lib --bin tcgui-backend)
[ "$1" = tcgui-backend ] || selected+=(-p "$1" --bin "$1")
cargo build --release --locked "${selected[@]}" >&2
directory=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
echo "$directory/release/$1"
