# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# What the scripts share. Sourced, not run.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${POSTMEISTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}}/postmeister
VENV=$CACHE/venv           # the newest Python found, the newest ansible-core that it can run
VENV_OLDEST=$CACHE/venv219 # the oldest ansible-core that the collection supports
export ROOT CACHE VENV VENV_OLDEST

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Containers with systemd and fixed addresses need root. The cache stays where the user's own is,
# and what tells pip, apt and podman of proxies and certificates goes along.
become_root() {
    [[ $EUID == 0 ]] && return 0
    command -v sudo >/dev/null || die "needs root or sudo: containers with fixed addresses cannot be started without."
    local -a keep=("HOME=$HOME" "PATH=$PATH" "POSTMEISTER_CACHE=${CACHE%/postmeister}")
    local name
    for name in $(compgen -e); do
        case $name in
            PIP_* | UV_* | npm_config_* | SSL_CERT_* | REQUESTS_CA_BUNDLE | POSTMEISTER_MIRROR | PYENV_ROOT | *_proxy | *_PROXY)
                keep+=("$name=${!name}")
                ;;
        esac
    done
    exec sudo env "${keep[@]}" "$0" "$@"
}

# What podman, Ansible and the tests read. Nothing of it touches /etc or ~/.ansible.
use_cache() {
    export CONTAINERS_CONF=$CACHE/containers.conf
    export ANSIBLE_COLLECTIONS_PATH=$CACHE/collections
    export ANSIBLE_HOME=$CACHE/ansible
    export ANSIBLE_PIPELINING=1
    export PYTHONPATH=$ROOT/molecule/lab
    # Bytecode of all, the collection too, as an installation by pip or from Galaxy has it; none of it in the checkout.
    unset PYTHONDONTWRITEBYTECODE
    export PYTHONPYCACHEPREFIX=$CACHE/pycache
    export PATH=$VENV/bin:$PATH
}
