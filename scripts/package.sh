#!/usr/bin/env bash
# package.sh [OPTION...] [deb] [rpm]
# Builds packages of the daemon. --help explains it.
set -euo pipefail

usage() {
    cat <<'END_OF_HELP'
Usage: scripts/package.sh [OPTION...] [deb] [rpm]

Builds the daemon with the profile `dist`, and makes a Debian package and an RPM from one directory tree: the program, the
systemd unit (disabled), presets and scenarios, the licence and the changelog, and, if the program can print them, the manual
pages and completions. The program contains no paths of this machine. Prints the paths of the packages.

  --program FILE      Package this program [default: build it, in target/package]
  --unchecked         Accept a program of any size and with paths of this machine, for tests of a package
  --output DIRECTORY  Write the packages there [default: target/packages]
  -h, --help          Print this text

Needs dpkg-deb for deb and rpmbuild for rpm, and installs them with apt-get if they are missing.

Examples:
  scripts/package.sh                  both packages
  scripts/package.sh deb
  sudo apt install ./target/packages/tcgui-backend_0.9.0_amd64.deb
END_OF_HELP
}

# The largest program that is packaged, in bytes.
largest=$((25 * 1000 * 1000))

program=
output=
checked=yes
kinds=()
while [ $# -gt 0 ]; do
    case $1 in
    --program | --output)
        [ $# -gt 1 ] || { echo "package.sh: $1 needs a value, see --help" >&2 && exit 2; }
        # Relative paths are meant from where the script was started.
        declare "${1#--}=$(realpath -m "$2")"
        shift 2
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    --unchecked) checked= && shift ;;
    deb | rpm) kinds+=("$1") && shift ;;
    *) echo "package.sh: unknown argument $1, see --help" >&2 && exit 2 ;;
    esac
done
[ "${#kinds[@]}" -gt 0 ] || kinds=(deb rpm)
# Cargo reads .cargo/config.toml from the working directory upwards.
cd "$(dirname "$0")/.."
output=${output:-$PWD/target/packages}
packaging=tcgui-backend/assets/packaging
home=${CARGO_HOME:-$HOME/.cargo}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

scripts/install-needs.sh cc=build-essential readelf=binutils
if [ -z "$program" ]; then
    # The compiler writes paths of source files into panics and errors. These flags replace them. Other flags mean other builds of
    # all dependencies, so this build has its own directory.
    RUSTFLAGS="--remap-path-prefix=$PWD=/usr/src/tcgui-backend --remap-path-prefix=$home=/usr/src/cargo" \
        CARGO_TARGET_DIR=target/package \
        cargo build --locked --profile dist -p tcgui-backend --bin tcgui-backend >&2
    program=target/package/dist/tcgui-backend
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
stage() { install -D -m "$1" "$2" "$tree/$3"; }

stage 755 "$program" usr/bin/tcgui-backend
strip --strip-all "$tree/usr/bin/tcgui-backend"
size=$(stat -c %s "$tree/usr/bin/tcgui-backend")
[ -z "$checked" ] || [ "$size" -le "$largest" ] || {
    echo "package.sh: the program has $size bytes, more than $largest: was it built with the profile dist?" >&2
    exit 1
}
if [ -n "$checked" ] && grep -aqF -e "$PWD/" -e "$home/" "$tree/usr/bin/tcgui-backend"; then
    echo "package.sh: the program contains paths of this machine: was it built by this script?" >&2
    exit 1
fi
stage 644 "$packaging/tcgui-backend.service" usr/lib/systemd/system/tcgui-backend.service
for kind in presets scenarios; do
    for file in tcgui-backend/assets/"$kind"/*.json5; do
        stage 644 "$file" "usr/share/tcgui/$kind/${file##*/}"
    done
done
config=
if [ -f "$packaging/backend.toml" ]; then
    config=etc/tcgui/backend.toml
    stage 644 "$packaging/backend.toml" "$config"
fi
documentation=usr/share/doc/tcgui-backend
stage 644 LICENSE "$documentation/copyright"
stage 644 README.md "$documentation/README.md"
stage 644 CHANGELOG.md "$documentation/changelog"
gzip -9n "$tree/$documentation/changelog"

# Manual pages and completions, if this version of the program has these commands.
if mkdir "$work/man" && "$program" man "$work/man" >/dev/null 2>&1; then
    for page in "$work"/man/*.[1-8]; do
        stage 644 "$page" "usr/share/man/man${page##*.}/${page##*/}"
        gzip -9n "$tree/usr/share/man/man${page##*.}/${page##*/}"
    done
fi
for shell in "bash usr/share/bash-completion/completions/tcgui-backend" \
    "zsh usr/share/zsh/vendor-completions/_tcgui-backend" "fish usr/share/fish/vendor_completions.d/tcgui-backend.fish"; do
    if "$program" completions "${shell%% *}" >"$work/completion" 2>/dev/null; then
        stage 644 "$work/completion" "${shell#* }"
    fi
done
find "$tree" -type d -exec chmod 755 {} +

description="Network impairment daemon (tc netem over Zenoh)"
mkdir -p "$output"

make_deb() {
    scripts/install-needs.sh dpkg-deb=dpkg
    local architecture libc root=$work/deb
    architecture=$(dpkg --print-architecture)
    # The newest version of glibc whose symbols the program uses.
    libc=$(readelf --version-info "$tree/usr/bin/tcgui-backend" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
    cp -a "$tree" "$root"
    mkdir "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<END
Package: tcgui-backend
Version: $version
Architecture: $architecture
Maintainer: The tcgui developers <tcgui@localhost>
Section: net
Priority: optional
Installed-Size: $(du -sk "$tree" | cut -f1)
Depends: libc6 (>= ${libc#GLIBC_}), libgcc-s1
Recommends: iproute2
Description: $description
 The daemon finds the network namespaces of this host, also those of
 containers, and impairs their interfaces with netem on request of
 graphical frontends.
END
    [ -z "$config" ] || echo "/$config" >"$root/DEBIAN/conffiles"
    (cd "$tree" && find . -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    for script in postinst prerm postrm; do
        install -m 755 "$packaging/deb/$script" "$root/DEBIAN/$script"
    done
    local package=$output/tcgui-backend_${version}_$architecture.deb
    dpkg-deb --root-owner-group --build "$root" "$package" >&2
    echo "$package"
}

make_rpm() {
    scripts/install-needs.sh rpmbuild=rpm
    local built files=$work/rpm-tree
    cp -a "$tree" "$files"
    # Fedora's zsh looks for completions in another directory than Debian's.
    [ ! -d "$files/usr/share/zsh" ] || mv "$files/usr/share/zsh/vendor-completions" "$files/usr/share/zsh/site-functions"
    cat >"$work/tcgui-backend.spec" <<END
Name: tcgui-backend
Version: $version
Release: 1
Summary: $description
License: MIT
%define _build_id_links none
%define __os_install_post %{nil}
%description
The daemon finds the network namespaces of this host, also those of
containers, and impairs their interfaces with netem on request of
graphical frontends.
%install
cp -a "$files/." "%{buildroot}"
%post
[ -d /run/systemd/system ] && systemctl daemon-reload || :
%preun
if [ "\$1" -eq 0 ]; then
    [ -d /run/systemd/system ] && systemctl disable --now tcgui-backend.service || :
    [ -d /var/lib/tcgui ] && tcgui-backend restore --all || :
fi
%postun
[ -d /run/systemd/system ] && systemctl daemon-reload || :
if [ "\$1" -ge 1 ]; then
    [ -d /run/systemd/system ] && systemctl try-restart tcgui-backend.service || :
else
    rm -rf /var/lib/tcgui
fi
%files
%defattr(-,root,root)
$(cd "$files" && find . -type d -path '*/tcgui*' -printf '%%dir "/%P"\n' | sort)
$(cd "$files" && find . -type f -printf '/%P\n' | sort | sed "s|^/etc/|%config(noreplace) &|")
END
    rpmbuild -bb --quiet --define "_buildhost localhost" --define "_topdir $work/rpm" --define "_rpmdir $work/rpm/out" --buildroot "$work/rpm/root" \
        "$work/tcgui-backend.spec" >&2
    built=$(find "$work/rpm/out" -name '*.rpm')
    cp "$built" "$output/"
    echo "$output/${built##*/}"
}

for kind in "${kinds[@]}"; do
    "make_$kind"
done
