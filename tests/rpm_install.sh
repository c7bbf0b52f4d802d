#!/usr/bin/env bash
# Tests the .rpm with rpm in a container that boots systemd: install, ask, upgrade with an edited configuration, erase.
# The root file system is Debian's. It has systemd and rpm, but its rpm database does not list its packages, so the test
# uses `--nodeps` and prints what the package requires. Needs root, systemd-container, mmdebstrap, cargo-generate-rpm and a
# Debian mirror.
#
#   cargo build --release --locked && tests/rpm_install.sh
#
# RPM_ROOT=FOLDER keeps the root file system and reuses it. BOOT_MIRROR names the mirror; the default is this system's own
# archive.
set -euo pipefail
cd "$(dirname "$0")/.."

mirror=${BOOT_MIRROR:-$(tests/support/apt_mirror.sh bookworm)}
work=$(mktemp -d)
root=${RPM_ROOT:-$work/root}
failures=0 leader= nspawn=
cleanup() {
    [ -z "$leader" ] || kill -KILL "$leader" 2>/dev/null || true
    [ -z "$nspawn" ] || [ -n "$leader" ] || kill "$nspawn" 2>/dev/null || true
    [ -z "$nspawn" ] || wait "$nspawn" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
say() { printf '\n== %s\n' "$*"; }
expect() { if [ "$2" = "$3" ]; then printf '   ok    %s: %s\n' "$1" "$3"; else printf '   FAIL  %s: wanted [%s], found [%s]\n' "$1" "$2" "$3"; failures=$((failures + 1)); fi; }
inside() { nsenter -t "$leader" -m -u -i -n -p -C -- "$@"; }
code() { local status=0; "$@" >"$work/out" 2>&1 || status=$?; printf %s "$status"; }
until_true() {
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}
active() { printf '%s %s' "$(inside systemctl is-active hf-mem-probe.socket || true)" "$(inside systemctl is-active hf-mem-probe.service || true)"; }

say "packages"
mkdir "$work/test"
stamp=$(git log -1 --format=%ct)
build() { cargo generate-rpm --auto-req auto --source-date "$stamp" -o "$work/test/$1" "${@:2}"; }
build one.rpm; build again.rpm; build two.rpm -s 'release = "2"'
expect "two builds from one binary are identical" "" "$(cmp "$work/test/one.rpm" "$work/test/again.rpm" 2>&1 || true)"
rpm=$work/test/one.rpm
printf '   %s bytes; requires: %s\n' "$(stat -c %s "$rpm")" "$(rpm -qp --requires "$rpm" | tr '\n' ' ')"
rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILEFLAGS:fflags} %{FILENAMES}\n]' "$rpm" | sed 's/^/   /'
expect "configuration files" /etc/hf-mem-probe/config.toml "$(rpm -qp --configfiles "$rpm")"
expect "owner and group of the files" "root root" "$(rpm -qp --qf '[%{FILEUSERNAME} %{FILEGROUPNAME}\n]' "$rpm" | sort -u)"

say "boot"
if [ ! -x "$root/usr/bin/rpm" ]; then
    mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,procps,util-linux,rpm bookworm "$root" "$mirror"
fi
systemd-nspawn -q -D "$root" -M "hfmprpm$$" --boot --register=no --keep-unit --console=read-only --private-network \
    --volatile=overlay --bind="$work/test:/opt/test" </dev/null >"$work/boot.log" 2>&1 &
nspawn=$!
find_leader() {
    local child
    for child in $(pgrep -P "$nspawn"); do
        if [ "$(cat "/proc/$child/comm" 2>/dev/null)" = systemd ]; then leader=$child; return; fi
    done
    return 1
}
until_true 30 find_leader || { cat "$work/boot.log"; exit 1; }
booted() { case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) ;; *) return 1 ;; esac; }
until_true 60 booted || { cat "$work/boot.log"; exit 1; }
left() { inside find / -xdev -name '*hf-mem-probe*' -not -path '/opt/test/*' -not -path '/proc/*' | sort; }
# Fedora disables services by preset, apart from a few; Debian enables them. A site's preset decides, so the test sets one.
inside bash -c 'mkdir -p /etc/systemd/system-preset && echo "enable hf-mem-probe.*" >/etc/systemd/system-preset/10-site.preset'

say "install"
expect "rpm -i" 0 "$(code inside rpm -i --nodeps /opt/test/one.rpm)"
sed 's/^/   /' "$work/out"
expect "user of the daemon" hf-mem-probe "$(inside id -un hf-mem-probe || true)"
expect "socket and service, by the preset" "enabled enabled" "$(inside systemctl is-enabled hf-mem-probe.socket hf-mem-probe.service | xargs)"
expect "not started by the package, as is usual with rpm" "inactive inactive" "$(active)"
expect "rpm -V finds no change" "" "$(inside rpm -V --nodeps hf-mem-probe || true)"
inside systemctl start hf-mem-probe.socket
expect "a question" 0 "$(code inside hf-mem-probe health)"
expect "the question starts the service" "active active" "$(active)"

say "upgrade"
inside bash -c 'sed -i "s/^filter = \"info\"/filter = \"debug\"/" /etc/hf-mem-probe/config.toml; touch /var/lib/hf-mem-probe/marker'
pid=$(inside systemctl show -P MainPID hf-mem-probe.service)
expect "rpm -U" 0 "$(code inside rpm -U --nodeps /opt/test/two.rpm)"
sed 's/^/   /' "$work/out"
expect "installed" 2 "$(inside rpm -q --qf '%{RELEASE}' hf-mem-probe)"
expect "socket and service" "active active" "$(active)"
expect "restarted" yes "$([ "$(inside systemctl show -P MainPID hf-mem-probe.service)" != "$pid" ] && echo yes)"
expect "the edited configuration is kept" 1 "$(inside grep -c '^filter = "debug"' /etc/hf-mem-probe/config.toml)"
expect "a question" 0 "$(code inside hf-mem-probe health)"

say "erase"
expect "rpm -e" 0 "$(code inside rpm -e hf-mem-probe)"
sed 's/^/   /' "$work/out"
expect "socket and service" "inactive inactive" "$(active)"
expect "the state is kept, because rpm has no purge" 0 "$(code inside test -e /var/lib/hf-mem-probe/marker)"
expect "the edited configuration" 0 "$(code inside test -e /etc/hf-mem-probe/config.toml.rpmsave)"
left | sed 's/^/   left: /'

say "power off"
kill -s SIGRTMIN+4 "$leader"; wait "$nspawn" || true; leader=; nspawn=
printf '\n%s\n' "$([ $failures = 0 ] && echo 'all passed' || echo "$failures failed")"
[ $failures = 0 ]
