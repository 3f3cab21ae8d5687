#!/usr/bin/env bash
# capture.sh NAME...: profiles of the server under the load of a scenario, into
# profiles/captures/NAME: hit, db-cold, overload. The server has all processors
# but the last, the load that one. What is large and says least, the trace and
# the metrics, is left out; the rest is small enough to keep for ever.
set -euo pipefail
cd "$(dirname "$0")/../.."
svc=${SVC:-bin/svc-index.rig} # go build -tags rig: overload delays the database
out=${OUT:-profiles/captures}
port=${PORT:-18190}
last=$(($(nproc) - 1))
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$tmp"' EXIT

capture() { # NAME KEYS "SETTINGS" "LOAD"
  local name=$1 keys=$2 settings=$3 load=$4 args=() s
  for s in $settings; do args+=(--set "$s"); done
  mkdir -p "$tmp/$name"
  "$svc" loadgen --prepare "$keys" --offline --data "$tmp/$name" >/dev/null
  taskset -c "0-$((last > 0 ? last - 1 : 0))" "$svc" serve --listen "127.0.0.1:$port" --admin "127.0.0.1:$((port + 1))" \
    --data "$tmp/$name" "${args[@]}" >"$tmp/$name.log" 2>&1 &
  server=$!
  until curl -fs "http://127.0.0.1:$port/readyz" >/dev/null; do sleep .1; done
  taskset -c "$last" "$svc" profile --admin "http://127.0.0.1:$((port + 1))" --out "$out/$name" --trace 0 \
    --during "loadgen --server http://127.0.0.1:$port --data $tmp/$name --dist uniform --keys $keys $load" ||
    echo "$name: the load ended with $?" >&2
  kill "$server"
  wait "$server" || true
  server=
  rm -f "$out/$name/metrics.txt"
  sed -i "s#$tmp/##g" "$out/$name"/*.json "$out/$name"/*.toml "$out/$name"/*.txt "$out/$name"/*.html
  head -3 "$out/$name/summary.txt"
}

for name in "$@"; do
  case $name in
  hit) capture hit 10000 "cache.ttl=10m" "--rate 20000 --warmup 3s --duration 10s" ;;
  db-cold) capture db-cold 200000 "cache.ttl=1s cache.bytes=1MiB" "--rate 8000 --warmup 2s --duration 10s" ;;
  overload) # four workers and 5 ms a read are 800 reads a second, and five times that is asked
    RIG_DB_DELAY=5ms capture overload 1000 "cache.ttl=10m stages.db.workers_min=4 stages.db.workers_max=4" \
      "--keys 1000000 --absent 1 --rate 4000 --connections 250 --pipeline 4 --warmup 2s --duration 10s" ;;
  *) echo "there is no capture $name; there are hit, db-cold, overload" >&2; exit 2 ;;
  esac
done
