#!/bin/sh
# Debian packages for a development tree: installs missing ones, starts and enables no service.
#
#   setup.sh packages [LIST]  install the packages of ./LIST (./packages if none is named) that are missing (root)
#   setup.sh python PYTHON    check that PYTHON can make the virtual environment
#   setup.sh root COMMAND     check that COMMAND may be run
#
# Errors are printed in one line: the missing part, and the remedy.
set -eu
here=$(dirname "$0")

refuse() {
    printf 'locum: %s\n' "$*" >&2
    exit 1
}

wanted() {
    sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/${list:-packages}"
}

missing() {
    for package in $(wanted); do
        case $(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null) in
            ii*) ;;
            *) printf '%s ' "$package" ;;
        esac
    done
}

check_system() {
    kernel=$(uname -s)
    [ "$kernel" = Linux ] || refuse "a Locum node needs Linux, this is $kernel. Run it on a Debian 12 machine, as root."
    found=unknown
    [ ! -r /etc/os-release ] || found=$(. /etc/os-release && echo "${ID:-unknown} ${VERSION_ID:-}")
    [ "$found" = "debian 12" ] || refuse "set-up is for Debian 12, this is $found." \
        "Run it on Debian 12 as root, or install what packaging/debian/$list names and run: make SKIP_PACKAGES=1"
}

# Services of the packages are the lab's to start, in namespaces of its own: the host must not run them
# because of a demo. A policy-rc.d that was there already is left alone.
install_packages() {
    policy=/usr/sbin/policy-rc.d
    fresh_services=
    for service in nginx ssh freeradius memcached redis-server mosquitto rsync dovecot; do
        [ -e "/lib/systemd/system/$service.service" ] || fresh_services="$fresh_services $service"
    done
    log=$(mktemp)
    added_policy=
    trap 'rm -f "$log" $added_policy' EXIT
    trap 'exit 130' INT TERM
    if [ ! -e "$policy" ]; then
        added_policy=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    echo "locum: installing Debian packages: $*"
    set -- install --no-install-recommends "$@"
    if ! { apt-get -qq -o DPkg::Lock::Timeout=120 update &&
        apt-get -qq -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        refuse "apt-get could not install the packages; its last lines are above. Mend that, then run make again."
    fi
    command -v systemctl >/dev/null || return 0
    for service in $fresh_services; do
        systemctl --quiet disable "$service.service" >/dev/null 2>&1 || true
    done
}

case ${1:-packages} in
    packages)
        list=${2:-packages}
        check_system
        absent=$(missing)
        [ -n "$absent" ] || exit 0
        [ "$(id -u)" = 0 ] || refuse "Debian packages are missing: ${absent% }. Run make again with sudo"
        # shellcheck disable=SC2086
        install_packages $absent
        ;;
    python)
        python=$2
        command -v "$python" >/dev/null ||
            refuse "Python 3.11 or later is missing ($python not found). Run: apt-get install python3-venv"
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            refuse "Python 3.11 or later is needed, $python is $version. Run: make PYTHON=/usr/bin/python3"
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            refuse "$python cannot make a virtual environment (no ensurepip). Run: make PYTHON=/usr/bin/python3"
        ;;
    root)
        [ "$(id -u)" = 0 ] ||
            refuse "\`make $2\` needs root (network namespaces, eBPF, TCP_REPAIR). Run: sudo make $2"
        ;;
    *) refuse "usage: setup.sh packages [LIST] | python PYTHON | root COMMAND" ;;
esac
