#!/usr/bin/env bash
# Sets up a checkout: the environment in .venv with the packages of requirements.lock, and Outgrow itself,
# editable. Safe to repeat; `make setup` calls it when the lock or pyproject.toml changed.
#
#   PYTHON  the interpreter to make the environment with (python3)
#   VENV    where the environment goes (.venv)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}

fail() {
    printf 'outgrow: %s\n' "$@" >&2
    exit 1
}

# requirements.lock is made for these versions.
supports() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

check_python() {
    command -v "$python" >/dev/null ||
        fail "$python was not found." "Install Python 3.11 or newer: apt-get install python3 python3-venv"
    supports "$python" ||
        fail "Python 3.11 to 3.14 is needed; $python is $("$python" -V 2>&1)." \
            "Name another one: make setup PYTHON=/path/to/python3.12"
}

# Debian ships ensurepip, without which there is no pip in a new environment, in a package of its own.
check_venv_module() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    local package
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    scripts/debian.sh "no-such-command=$package"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make environments: its modules venv and ensurepip are missing." \
            "Name another Python: make setup PYTHON=/path/to/python3"
}

# An environment of another Python, or one that was cut off while it was made, is made again.
make_environment() {
    supports "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    echo "Making the environment in $venv"
    "$python" -m venv --clear "$venv"
}

install_packages() {
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    echo "Installing the packages of requirements.lock"
    "${pip[@]}" --require-hashes --requirement requirements.lock ||
        fail "the packages of requirements.lock could not be installed; pip says why above." \
            "Without a network, point pip at a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS)."
    "${pip[@]}" --no-deps --no-build-isolation --editable . ||
        fail "Outgrow itself could not be installed into $venv; pip says why above."
}

check_python
check_venv_module
# unshare lets PostgreSQL, which refuses to be root, run for a fleet that root started; openssl makes
# the certificates between the nodes of a fleet.
scripts/debian.sh unshare=util-linux openssl=openssl
make_environment
install_packages
echo "Ready: $venv/bin/outgrow"
