#!/bin/sh
# Builds our server, its peers and the bench, and runs the bench.
# Arguments go to it: run.sh -quick -parts hits,open -rounds 7
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
bin=$root/bin/bench-peers/bin

missing=""
command -v wrk >/dev/null || missing="$missing wrk"
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$missing nginx-light"
if [ -n "$missing" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
		# Debian starts what it installs. The bench has an nginx of its own.
		case $missing in *nginx*) service nginx stop || true ;; esac
	else
		echo "bench-peers needs$missing: install them (Debian, as root: apt-get install$missing)" >&2
		exit 2
	fi
fi

mkdir -p "$bin"
cd "$root"
${GO:-go} build -trimpath -ldflags "${LDFLAGS:--s -w}" -o "$bin/svc-index" ./cmd/svc-index
${GO:-go} build -trimpath -ldflags "${LDFLAGS:--s -w}" -tags rig -o "$bin/svc-index-rig" ./cmd/svc-index
cd testing/performance/peers
${GO:-go} build -trimpath -ldflags "-s -w" -o "$bin/" ./...
exec "$bin/bench" -root "$root" "$@"
