#!/usr/bin/env bash
# Installs a Debian package for each command that is missing: scripts/debian.sh COMMAND=PACKAGE ...
# Needs root or sudo only when something is missing. Exit 1: it could not be installed.
set -euo pipefail

missing=()
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

fail() {
    printf 'outgrow: %s\n  Install it yourself, then try again: apt-get install %s\n' "$1" "${missing[*]}" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "missing: ${missing[*]} (and this system has no apt-get)."
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "missing: ${missing[*]} (and this user is neither root nor has sudo)."
    as_root=(sudo)
fi

echo "Installing Debian packages: ${missing[*]}"
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
"${as_root[@]}" apt-get update -qq || fail "apt-get update failed. Is there a network?"
"${install[@]}" "${missing[@]}" >/dev/null || fail "apt-get could not install ${missing[*]}."
