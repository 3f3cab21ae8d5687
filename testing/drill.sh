#!/usr/bin/env bash
# The operators' drill: start a server, put it under load, take it through what
# docs/runbook.md speaks of, and write down what was seen. It uses the rig build,
# whose database can be told to hang. Nothing outside OUT is touched.
set -euo pipefail
bin=$(realpath "$1")
out=$2
rate=${RATE:-500} # a second; gentle, so that it can be walked beside other work
busy=$((8 * rate)) # while it is profiled: a profile takes a sample each 10 ms of work
mkdir -p "$out"
out=$(realpath "$out")
data=$out/data
report=$out/report.md
[ ! -e "$data" ] || { echo "drill: $data is there, of an earlier drill: give another OUT" >&2; exit 2; }

failed=0
say() { echo "$*" | tee -a "$report"; }
# check WHAT COMMAND...: note whether something that must hold does.
check() {
  local what=$1; shift
  if "$@"; then say "- ok: $what"; else say "- **FAILED**: $what"; failed=1; fi
}
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
url=http://127.0.0.1:$(port)
admin=http://127.0.0.1:$(port)
config=$out/drill.toml

# A good configuration; $1 is what a knob is turned to.
write_config() {
  cat >"$config.new" <<TOML
listen = "${url#http://}"
admin = "${admin#http://}"
data_dir = "$data"
[dht]
enabled = false
[cache]
bytes = "16MiB"
[watch]
stall = "2500ms"
[stages.db]
workers_max = $1
[compression]
enabled = ${2:-true}
TOML
  mv "$config.new" "$config"
}
start() {
  RIG_DB_FREEZE=4s "$bin" serve --config "$config" >>"$out/server.out" 2>>"$out/server.log" &
  server=$!
  for _ in $(seq 200); do
    curl -sf -o /dev/null "$admin/readyz" && return
    kill -0 $server 2>/dev/null || break
    sleep 0.1
  done
  echo "drill: the server does not come up, see $out/server.log" >&2
  exit 1
}
server= load= events=
cleanup() { for p in $load $events $server; do kill -TERM $p 2>/dev/null || true; done; wait 2>/dev/null || true; }
trap cleanup EXIT

# metric NAME: the sum of its series, 0 without any.
metric() { curl -s "$admin/metrics" | awk -v m="$1" 'index($0, m) == 1 && substr($0, length(m)+1, 1) ~ /[ {]/ || $1 == m {s += $NF} END {printf "%d", s}'; }
grew() { [ "$(metric "$1")" -gt "$2" ]; }
is() { [ "$(metric "$1")" -eq "$2" ]; }
within() { # SECONDS COMMAND...: it comes true in time
  local until=$((SECONDS + $1)); shift
  until "$@"; do [ $SECONDS -lt $until ] || return 1; sleep 0.1; done
}
code() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
ready() { [ "$(code "$admin/readyz")" = 200 ]; }
not_ready() { ! ready; }
errors() { metric 'http_requests_total{route="resolve",method="GET",status="error"}'; }
asks() { "$bin" loadgen --server "$url" --keys 2000 --rate "$rate" --duration "$1" "${@:2}" >"$out/loadgen.txt" 2>&1 || true; }

: >"$report"
say "# Drill of $("$bin" version | head -1), $(date -u +%FT%TZ)"
write_config 8
start
say
say "A server on $url, admin on $admin, 2,000 keys, asked for $rate a second ($busy while it is profiled)."
"$bin" loadgen --server "$url" --data "$data" --prepare 2000 >>"$out/loadgen.txt" 2>&1

say
say "## Flame graph"
say
"$bin" profile --admin "$admin" --out "$out/calm" --during "loadgen --server $url --keys 2000 --rate $busy --duration 6s" >"$out/profile.txt" 2>&1 || true
check "a profile with its flame graphs is in calm/" test -s "$out/calm/index.html"
say
"$bin" profile open "$out/calm" --print 2>/dev/null | head -30 | sed 's/^/    /' | tee -a "$report"

say
say "## Stalls"
say
dumps=$(metric flight_dumps_total)
stalls=$(metric stalls_total)
asks 8s --fresh 0.5 & load=$!
sleep 1
kill -USR1 $server # the database hangs for 4 s
check "the watch counts a stall while the database hangs" within 6 grew stalls_total "$stalls"
check "and keeps goroutines and a trace of it" within 8 grew flight_dumps_total "$dumps"
wait $load || true; load=
say "- stalls: $(metric stalls_total), dumps: $(metric flight_dumps_total), in data/flight: $(ls "$data/flight" 2>/dev/null | tr '\n' ' ')"
check "the server is ready again" within 10 ready

say
say "## Metrics"
say
curl -s "$admin/metrics" >"$out/metrics.txt"
for m in http_requests_total request_latency_seconds_count index_cache_hits_total index_cache_misses_total stage_queue_depth \
  breaker_state index_integrity_fail_total bus_lagged_total audit_entries_total audit_pending process_resident_memory_bytes process_open_fds; do
  check "$m is exposed: $(metric $m)" grep -q "^$m" "$out/metrics.txt"
done
check "no absence was served after a write" is index_negative_served_after_write_total 0
check "no bytes failed their digest" is index_integrity_fail_total 0
check "nothing panicked on an event loop" is http_loop_panics_total 0

say
say "## Knobs"
say
good=$(metric 'config_reloads_total{result="ok"}')
bad=$(metric 'config_reloads_total{result="failed"}')
errs=$(errors)
asks 10s & load=$!
for i in 1 2 3 4; do
  write_config $((2 + i)); kill -HUP $server; sleep 1
  sed 's/workers_max = .*/workers_max = -1/' "$config" >"$config.bad"; mv "$config.bad" "$config"; kill -HUP $server; sleep 1
done
write_config 8; kill -HUP $server
wait $load || true; load=
check "good files were taken: $(($(metric 'config_reloads_total{result="ok"}') - good))" grew 'config_reloads_total{result="ok"}' $((good + 3))
check "bad files changed nothing: $(($(metric 'config_reloads_total{result="failed"}') - bad))" grew 'config_reloads_total{result="failed"}' $((bad + 3))
check "no request failed for it" test "$(errors)" = "$errs"
check "the knob stands where it was left" within 3 sh -c "curl -s $admin/debug/config | grep -A12 'stages.db\]' | grep -q 'workers_max = 8'"

say
say "## Chaos"
say
curl -sN -H "Authorization: Bearer $("$bin" token mint --data "$data" --scope index.admin)" "$admin/events" >"$out/events.txt" & events=$!
check "who has no capability may not write: $(code -X PUT --data x "$url/manifests")" test "$(code -X PUT --data x "$url/manifests")" = 401
"$bin" token rotate --data "$data" --force >>"$out/loadgen.txt"
token=$("$bin" token mint --data "$data")
check "keys rotated, a new capability writes" test "$(code -X PUT -H "Authorization: Bearer $token" --data drill "$url/manifests")" = 201
zipped() { printf drill | gzip | curl -s -o /dev/null -w '%{http_code}' -X PUT -H "Authorization: Bearer $token" -H 'Content-Encoding: gzip' --data-binary @- "$url/manifests"; }
takes() { [ "$(zipped)" = "$1" ]; }
check "a compressed body is taken" takes 200
write_config 8 false
check "compression switched off, it is not: 415" within 5 takes 415
write_config 8
check "and on again" within 5 takes 200
kill -USR1 $server
slow=$(curl -s -o /dev/null -w '%{http_code}' "$url/resolve/name:nobody/has/this")
check "while the database hangs an absence is not claimed: $slow" test "$slow" != 404
check "and then it is: 404" within 10 sh -c "[ \$(curl -s -o /dev/null -w '%{http_code}' $url/resolve/name:nobody/has/this) = 404 ]"
check "a backup of the running server" "$bin" db backup --config "$config" --out "$out/drill.bak"
asks 3s --fresh 0.2 & load=$!
sleep 1
kill -KILL $server; wait $server 2>/dev/null || true
wait $load || true; load=
kill $events 2>/dev/null || true; events=
check "the stream of events told of what happened: $(grep -c '^event:' "$out/events.txt") events" grep -q '^event: manifest' "$out/events.txt"
check "after kill -9 the database is sound" sh -c "'$bin' db verify --data '$data' | grep -q ^sound"
start
check "and it serves again" test "$(code "$url/healthz")" = 200
check "what was written is there" test "$(code -X PUT -H "Authorization: Bearer $("$bin" token mint --data "$data")" --data drill "$url/manifests")" = 200

say
say "## Profile, split"
say
"$bin" profile --admin "$admin" --out "$out/fresh" --during "loadgen --server $url --keys 2000 --rate $busy --duration 6s --fresh 1" >>"$out/profile.txt" 2>&1 || true
check "a second profile, past the cache, is in fresh/" test -s "$out/fresh/index.html"
say
"$bin" profile diff "$out/calm" "$out/fresh" --rows 12 2>/dev/null | sed 's/^/    /' | tee -a "$report"

say
say "## The end"
say
kill -TERM $server; status=0; wait $server || status=$?; server=
check "SIGTERM drains and ends with 0" test $status = 0
check "the audit fits the database" sh -c "'$bin' audit verify --data '$data' | grep -q ^sound"
check "the backup restores" sh -c "'$bin' db restore '$out/drill.bak' --data '$out/restored' >/dev/null && '$bin' db verify --data '$out/restored' | grep -q ^sound"
say
[ $failed = 0 ] && say "All of it held." || say "Not all of it held: see above, and $out/server.log."
exit $failed
