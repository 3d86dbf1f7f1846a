#!/bin/bash
# install_prometheus.sh TARGET: Debian's Prometheus and promtool, in seconds, without touching the system.
#
#   TARGET/prometheus  TARGET/promtool
#
# The package is fetched and checked by apt as for an install, and unpacked into the folder. Its version is Debian's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/install.sh"
candidate() { LC_ALL=C apt-cache policy prometheus 2>/dev/null | sed -n 's/^  Candidate: \([0-9].*\)/\1/p'; }
version=$(candidate)
if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq >/dev/null
    version=$(candidate)
fi
begin prometheus "$1" "prometheus-$version"
runs() { "$1/promtool" --version >/dev/null 2>&1 && "$1/prometheus" --version >/dev/null 2>&1; }
if installed && runs "$target"; then exit 0; fi
[ -n "$version" ] || fail "apt knows no package prometheus (apt-get update?)"
stage
(cd "$work" && apt-get -o APT::Sandbox::User=root download -qq "prometheus=$version")
dpkg-deb -x "$work"/prometheus_*.deb "$work/root"
mv "$work/root/usr/bin/prometheus" "$work/root/usr/bin/promtool" "$out/"
runs "$out" || fail "what was unpacked does not run"
finish
