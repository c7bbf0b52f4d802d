#!/bin/bash
# Tests a cache disk that hangs: an ext4 on a loop device under the daemon's cache folder, frozen while the daemon runs.
# Health, leases and questions continue, the cache is degraded, and SIGTERM stops the daemon. Needs root, mkfs.ext4,
# fsfreeze and curl.
#
#   tests/cache_disk_hang.sh [BINARY]
set -eu
binary=$(realpath "${1:-target/debug/hf-mem-probe}")
fixture=$(realpath "$(dirname "$0")/fixtures/Qwen3-8B")
folder=$(mktemp -d)
daemon=
frozen=

finish() {
    [ -z "$frozen" ] || fsfreeze -u "$folder/cache"
    [ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null || true
    wait
    umount "$folder/cache" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT

fail() {
    echo "FAILED: $*" >&2
    cat "$folder/log" >&2
    exit 1
}

cd "$folder"
truncate -s 64M image
mkfs.ext4 -q image
mkdir cache state
mount -o loop image cache
cat > config.toml <<TOML
[socket]
path = "$folder/api.sock"
group = "0"
[leases]
state_directory = "$folder/state"
[hub]
endpoint = "http://127.0.0.1:9"
cache_directory = "$folder/cache"
TOML
env -i HOME="$folder" "$binary" daemon --gpus 8xH100-80GB --config config.toml 2>log &
daemon=$!
for _ in $(seq 100); do [ -S api.sock ] && break; sleep 0.05; done

ask() { curl -s -m "$1" --unix-socket api.sock "http://localhost$2" "${@:3}"; }
probe() { env -i HOME="$folder" timeout 20 "$binary" "$@" --socket "$folder/api.sock"; }

ask 20 /v1/health | grep -q '"status":"ok"' || fail "health is not ok at the start"
# A damaged cache entry of the requested branch. Removing it is a write, which a frozen disk never completes.
entry=$(python3 - <<'PY'
import hashlib
digest = hashlib.sha256()
for part in [b"public", b"a/b", b"main"]:
    digest.update(len(part).to_bytes(8, "little") + part)
print(digest.hexdigest())
PY
)
mkdir -p cache/v1/revision
echo damaged >"cache/v1/revision/$entry"
sync -f cache
fsfreeze -f cache
frozen=yes

for round in 1 2 3; do
    started=$(date +%s%N)
    ask 30 /v1/fits -H 'content-type: application/json' -d '{"model":{"repo":"a/b"}}' >/dev/null || fail "no answer to a question in round $round"
    echo "round $round: answered after $(( ($(date +%s%N) - started) / 1000000 )) ms"
    started=$(date +%s%N)
    ask 5 /v1/health >health.json || fail "no answer to a health request"
    echo "health: $(( ($(date +%s%N) - started) / 1000000 )) ms, $(grep -o '"name":"cache","status":"[a-z]*"' health.json)"
done
probe fits "$fixture" --reserve --holder job --ttl 60s --json >lease.json || fail "no lease: $(cat lease.json)"
grep -q '"lease": {' lease.json || fail "the answer contains no lease"
grep -q '"name":"cache","status":"degraded"' health.json || fail "the cache is not degraded: $(cat health.json)"

started=$(date +%s%N)
kill -TERM "$daemon"
for _ in $(seq 100); do grep -q 'stopped:' log && break; sleep 0.05; done
grep -q 'stopped:' log || fail "not stopped after 5 s"
[ ! -S api.sock ] || sleep 1
[ ! -S api.sock ] || fail "the socket still exists after the stop"
echo "SIGTERM: stopped after $(( ($(date +%s%N) - started) / 1000000 )) ms"
echo "process state: $(awk '/^State/ {print $2, $3}' "/proc/$daemon/status" 2>/dev/null || echo gone)"

fsfreeze -u cache
frozen=
code=0
wait "$daemon" || code=$?
daemon=
[ "$code" = 0 ] || fail "exit code $code"
echo "disk thawed: the process ended with exit code 0"
