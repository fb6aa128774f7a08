#!/bin/sh
# Sees to it that FUSE can be used: libfuse, fusermount3, /dev/fuse. Installs the system's packages
# as root or with sudo, else prints the command to run. With --both also libfuse 2, for the tests.
set -eu

# ldconfig is not on every user's PATH
has() { PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q "$1"; }
ready() {
    has 'libfuse3\.so' && command -v fusermount3 >/dev/null &&
        { [ "${1:-}" != --both ] || has 'libfuse\.so\.2'; }
}

packages() {
    if command -v apt-get >/dev/null; then
        echo fuse3
        if [ "${1:-}" = --both ]; then
            # the name since the 64-bit time_t transition; absent where libfuse 2 was dropped
            for name in libfuse2t64 libfuse2; do
                if apt-cache show "$name" >/dev/null 2>&1; then echo "$name"; break; fi
            done
        fi
    elif command -v dnf >/dev/null; then
        echo fuse3 fuse3-libs
        [ "${1:-}" != --both ] || echo fuse-libs
    fi
}

install() {
    if command -v apt-get >/dev/null; then
        [ -n "$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null)" ] || $1 apt-get update -qq
        names=$(packages "${2:-}" | tr '\n' ' ')
        # the lists may be too old for what the archive still holds
        $1 env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $names ||
            { $1 apt-get update -qq && $1 env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $names; }
    else
        $1 dnf install -y -q $(packages "${2:-}" | tr '\n' ' ')
    fi >/dev/null
}

if ! ready "${1:-}"; then
    names=$(packages "${1:-}" | tr '\n' ' ' | sed 's/ $//')
    if [ -z "$names" ]; then
        echo "install libfuse 3 and fusermount3 with your system's package manager, then try again" >&2
        exit 1
    fi
    if command -v apt-get >/dev/null; then how="apt-get install $names"; else how="dnf install $names"; fi
    if [ "$(id -u)" = 0 ]; then
        echo "installing $names ..."
        install "" "${1:-}"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        echo "installing $names with sudo ..."
        install sudo "${1:-}"
    else
        echo "FUSE is not installed. Run this, then try again:" >&2
        echo "    sudo $how" >&2
        exit 1
    fi
fi

if [ ! -e /dev/fuse ]; then
    echo "there is no /dev/fuse: load the module (sudo modprobe fuse), or start the container with" >&2
    echo "    --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor:unconfined" >&2
    [ "${1:-}" = --both ] || exit 1  # the suite skips the mount tests, and says so
fi
