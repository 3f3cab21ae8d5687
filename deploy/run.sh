#!/usr/bin/env bash
# Start a small private network and a server in it, publish the Go tree into
# the server, and show it answering; then a second server with an empty
# database, which finds through the network what the first one has. Ends with
# an interrupt.
set -euo pipefail
bin=$1
src=$(go env GOROOT)/src
url=http://127.0.0.1:8080
second=http://127.0.0.1:8081
mkdir -p data && chmod 700 data

set -m # each in a process group of its own: an interrupt reaches it once, through us
"$bin" devnet --nodes 4 >data/devnet.txt &
devnet=$!
for _ in $(seq 50); do grep -q dht.bootstrap= data/devnet.txt && break; sleep 0.1; done
network=$(sed -n 's/.*--set \(dht.bootstrap=.*\)/\1/p' data/devnet.txt)
[ -f data/publisher.key ] || "$bin" key new data/publisher.key --prefix name:go >/dev/null
trust=trust.publishers=name:go=$("$bin" key show data/publisher.key --prefix name:go | awk '$1=="pubkey"{print $2}')
"$bin" serve --profile dev --set "$network" --set "$trust" &
server=$!
other=
stop() {
  trap '' INT TERM
  kill -TERM $other $server $devnet 2>/dev/null || true
  wait $server
  exit $?
}
trap stop INT TERM
set +m

for _ in $(seq 100); do
  curl -sf "$url/readyz" >/dev/null 2>&1 && break
  kill -0 $server 2>/dev/null || { kill $devnet; wait $server; exit $?; } # its own message says why
  sleep 0.1
done

echo
echo "Publishing $src under name:go/src, signed with data/publisher.key ..."
"$bin" publish "$src/net/http" --prefix name:go/first --server "$url" --data data --key data/publisher.key >/dev/null
"$bin" publish "$src" --prefix name:go/src --server "$url" --data data --key data/publisher.key

cid=$(curl -sf "$url/resolve/name:go/src/net/http" | sed 's/.*"manifest_cid":"\([^"]*\)".*/\1/')
show() { echo; echo "\$ $*"; "$@" | head -c 400; echo; }
echo
echo "It answers. Which manifest is net/http, who serves it, and what is in it:"
show curl -s "$url/resolve/name:go/src/net/http"
show curl -s "$url/providers/$cid"
show curl -s "$url/manifests/$cid"

set -m
rm -rf data/second
"$bin" serve --profile dev --listen 127.0.0.1:8081 --admin 127.0.0.1:9109 --data data/second --set "$network" --set "$trust" >data/second.log 2>&1 &
other=$!
set +m
echo
echo "A second server, $second, has an empty database. It asks the network (X-Index-Source: dht) and keeps what it found (then: db):"
for _ in $(seq 300); do curl -sf "$second/resolve/name:go/first" >/dev/null 2>&1 && break; sleep 0.2; done
show curl -si "$second/resolve/name:go/first?fresh=true"
show curl -si "$second/providers/$cid?fresh=true"
echo
echo "The same again, one a line, for you to try:"
echo "curl -i $url/resolve/name:go/src/net/http"
echo "curl -i $url/providers/$cid"
echo "curl -s $url/manifests/$cid"
echo "curl -i $second/resolve/name:go/src/net/http    # found in the network, once the first server has told it"
echo "curl -s http://127.0.0.1:9109/debug/dht         # how: routing table, look-ups, hops"
echo
echo "How fast is it here? Ask for ten thousand names, 5,000 times a second (docs/loadgen.md):"
echo "$bin loadgen --prepare 10000 --rate 5000 --duration 30s --slo 'p95<80ms,error<0.1%'"
echo
echo "Serving on $url until Ctrl-C. See the pipeline at work: http://127.0.0.1:9108/ in a browser."
wait $server
