#!/usr/bin/env bash
# Start the server on its embedded default, publish the Go tree into it, and
# show it answering. Ends with an interrupt.
set -euo pipefail
bin=$1
src=$(go env GOROOT)/src
url=http://127.0.0.1:8080

set -m # the server in a process group of its own: an interrupt reaches it once, through us
"$bin" serve --profile dev &
server=$!
set +m
stop() { trap '' INT TERM; kill -TERM $server 2>/dev/null || true; wait $server; exit $?; }
trap stop INT TERM

for _ in $(seq 100); do
  curl -sf "$url/readyz" >/dev/null 2>&1 && break
  kill -0 $server 2>/dev/null || { wait $server; exit $?; } # its own message says why
  sleep 0.1
done

echo
echo "Publishing $src under name:go/src ..."
"$bin" publish "$src" --prefix name:go/src --server "$url" --data data

cid=$(curl -sf "$url/resolve/name:go/src/net/http" | sed 's/.*"manifest_cid":"\([^"]*\)".*/\1/')
show() { echo; echo "\$ $*"; "$@" | head -c 400; echo; }
echo
echo "It answers. Which manifest is net/http, who serves it, and what is in it:"
show curl -s "$url/resolve/name:go/src/net/http"
show curl -s "$url/providers/$cid"
show curl -s "$url/manifests/$cid"
echo
echo "The same again, one a line, for you to try:"
echo "curl -i $url/resolve/name:go/src/net/http"
echo "curl -i $url/providers/$cid"
echo "curl -s $url/manifests/$cid"
echo
echo "How fast is it here? Ask for ten thousand names, 5,000 times a second (docs/loadgen.md):"
echo "$bin loadgen --prepare 10000 --rate 5000 --duration 30s --slo 'p95<80ms,error<0.1%'"
echo
echo "Serving on $url until Ctrl-C. See the pipeline at work: http://127.0.0.1:9108/ in a browser."
wait $server
