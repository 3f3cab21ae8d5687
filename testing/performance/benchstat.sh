#!/usr/bin/env bash
# benchstat.sh BASE: micro-benchmarks of BASE and of the working tree, six runs
# of each in turns, so that a machine that slows down slows down both.
set -euo pipefail
cd "$(dirname "$0")/../.."
base=$1
packages=${PACKAGES:-./queue ./index ./netio ./stages ./stages/ram}
tmp=$(mktemp -d)
trap 'git worktree remove --force "$tmp/tree" 2>/dev/null || true; rm -rf "$tmp"' EXIT
git worktree add --detach "$tmp/tree" "$base" >/dev/null
for i in 1 2 3 4 5 6; do
  for side in base new; do
    if [ $side = base ]; then dir=$tmp/tree; else dir=.; fi
    # shellcheck disable=SC2086
    (cd "$dir" && go test -run '^$' -bench "${BENCH:-.}" -benchmem -benchtime "${BENCHTIME:-100ms}" -count 1 $packages) >>"$tmp/$side.txt"
  done
done
go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da "base=$tmp/base.txt" "new=$tmp/new.txt"
