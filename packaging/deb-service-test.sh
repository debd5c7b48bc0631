#!/bin/bash
# Boots the Debian in ROOT, which has the packages and a TensorFlow, and drives the service there as an administrator
# does: it is skipped, configured, started, asked, reloaded, upgraded, stopped. As root.
#
#     deb-service-test.sh ROOT MODELS
set -euo pipefail
cd "$(dirname "$0")/.."
root=$1 models=$2 unit=session-group-server
command -v systemd-nspawn >/dev/null || packaging/need.sh systemd-container
# A place of its own, with no network but its own, so that ports are free.
machine=session-group-$$
systemd-nspawn --quiet --directory="$root" --machine="$machine" --register=no --keep-unit --private-network --boot \
    --console=pipe </dev/null >"$root.log" 2>&1 &
nspawn=$!
trap 'kill -TERM $nspawn 2>/dev/null; wait $nspawn || true' EXIT

fail() {
    echo "error: $*" >&2
    inside journalctl --no-pager --unit $unit 2>/dev/null | tail -30 >&2
    exit 1
}
inside() {
    nsenter --target "$init" --all -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
# within SECONDS COMMAND...: until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "never: $*"
        sleep 0.5
    done
}
is() {
    [ "$(inside systemctl show --property="$1" --value $unit)" = "$2" ]
}
logged() {
    # All of it is read: a pipe that closes early would count as a failure.
    inside journalctl --no-pager --unit $unit | grep "$1" >/dev/null
}
# answer MODEL: what y = x / 2 + 2 is for 1.
answer() {
    inside curl --silent --fail --data '{"instances": [1]}' "http://localhost:8501/v1/models/$1:predict" |
        tr -d ' \n' | grep '"predictions":\[2.5\]' >/dev/null
}
has_booted() {
    # The first process inside is the only child of nspawn.
    init=$(pgrep --parent $nspawn) && inside systemctl is-system-running 2>/dev/null | grep -E 'running|degraded' >/dev/null
}
within 60 has_booted

faults=$(inside systemd-analyze verify "$unit.service" 2>&1) && [ -z "$faults" ] ||
    fail "systemd finds fault with the unit: $faults"
inside systemd-analyze --no-pager --threshold=25 security $unit >"$root/tmp/security" ||
    { cat "$root/tmp/security"; fail "the service is exposed"; }

# Enabled and without a model: skipped, not failed, and it says why.
inside systemctl is-enabled --quiet $unit || fail "the service is not enabled"
inside systemctl start $unit
is ActiveState inactive && is Result exec-condition || fail "a service without models is not skipped"
logged 'not started: no model is configured' || fail "the log does not say why it is skipped"

mkdir -p "$root/srv/models/half" "$root/srv/models/other"
cp -r "$models/half_plus" "$root/srv/models/half/1"
cp -r "$models/half_plus" "$root/srv/models/other/1"
chmod -R go=rX "$root/srv"
configure() {
    {
        echo "model_config_list {"
        for name; do
            echo "config { name: '$name' base_path: '/srv/models/$name' model_platform: 'tensorflow' }"
        done
        echo "}"
    } >"$root/etc/session-group/models.config"
}
configure half
inside systemctl start $unit || fail "the service does not start"
is ActiveState active || fail "the service has started and is not active"
answer half || fail "the service has started and does not answer"
pid=$(inside systemctl show --property=MainPID --value $unit)
[ "$(inside stat --format=%u "/proc/$pid")" -ne 0 ] || fail "the service runs as root"

configure half other
inside systemctl reload $unit
within 60 answer other
is MainPID "$pid" || fail "reloading has restarted the service"

# The next version, in a folder that the booted system sees as it is; it keeps what the administrator has written.
packages=$(mktemp -d)
dpkg-deb -R "$root"/tmp/$unit*.deb "$packages/next"
sed -i 's/^Version: .*/&+next/' "$packages/next/DEBIAN/control"
dpkg-deb --root-owner-group --build "$packages/next" "$root/srv/next.deb" >/dev/null
rm -rf "$packages"
inside dpkg -i /srv/next.deb
within 60 answer other
! is MainPID "$pid" || fail "upgrading has not restarted the service"

inside systemctl stop $unit
is Result success && is ExecMainStatus 0 || fail "the service does not end well"
inside systemctl disable --quiet $unit
inside dpkg -i /srv/next.deb
inside systemctl is-enabled --quiet $unit && fail "an upgrade has enabled the service again"

inside man --warnings session_group_model_server 2>"$root/tmp/warnings" | grep -e --model_config_file >/dev/null ||
    fail "the manual page does not name --model_config_file"
[ ! -s "$root/tmp/warnings" ] || { cat "$root/tmp/warnings"; fail "the manual page has mistakes"; }

inside systemctl start $unit
inside dpkg --remove $unit
is LoadState not-found || fail "the unit stays after removing"
[ -e "$root/etc/session-group/models.config" ] || fail "removing has removed what the administrator has written"
