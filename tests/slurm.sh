#!/usr/bin/env bash
# Tests the Slurm section of docs/integrations.md on two nodes of this machine. Its jobs ask before they start, its Prolog
# reports the devices and never fails, and its TaskProlog exports the placement. Needs root, slurm-wlm and munge. Takes half
# a minute.
#
#   tests/slurm.sh BINARY
#
# The daemon serves declared devices. The test changes nothing outside its temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:?usage: tests/slurm.sh BINARY}")
for tool in munged slurmctld slurmd srun; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed (slurm-wlm, munge)"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: needs root"; exit 0; }
work=$(mktemp -d /tmp/slurm.XXXXXX)
chmod 755 "$work"
failures=0
started=()
cleanup() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    [ ! -e "$work/run/munged.pid" ] || kill "$(cat "$work/run/munged.pid")" 2>/dev/null || true
    for node in n1 n2; do [ ! -e "$work/run/$node.pid" ] || kill "$(cat "$work/run/$node.pid")" 2>/dev/null || true; done
    sleep 0.5
    rm -rf "$work"
}
trap cleanup EXIT
say() { printf '\n== %s\n' "$*"; }
expect() { if [ "$2" = "$3" ]; then printf '   ok    %s: %s\n' "$1" "$3"; else printf '   FAIL  %s: wanted [%s], found [%s]\n' "$1" "$2" "$3"; failures=$((failures + 1)); fi; }
until_true() { local end=$((SECONDS + $1)); shift; until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done; }

mkdir -p "$work"/{run,log,spool/n1,spool/n2,state,dev,jobs,probe/state,probe/cache,reports}
chmod 1777 "$work/jobs" "$work/reports"
cp -r tests/fixtures/Qwen3-8B "$work/model"
mkdir "$work/bin"; ln -s "$binary" "$work/bin/hf-mem-probe"
for number in 0 1 2 3 4 5; do mknod "$work/dev/nvidia$number" c 195 $number; done
export HF_MEM_PROBE_SOCKET=$work/run/api.sock

# The daemon of the node.
cat >"$work/probe.toml" <<C
[socket]
path = "$work/run/api.sock"
group = "0"
mode = "0666"
[hub]
offline = true
cache_directory = "$work/probe/cache"
[leases]
state_directory = "$work/probe/state"
C
daemon() { "$binary" daemon --config "$work/probe.toml" --gpus 4x24GiB 2>>"$work/log/probe" & probe=$!; started+=("$probe"); until_true 20 test -S "$work/run/api.sock"; }

# --- the files of that section ---
cat >"$work/prolog.sh" <<P
#!/bin/sh
# Prolog: it has an almost empty environment, so it uses absolute paths. It has its own time limit and always exits with 0.
HF_MEM_PROBE_SOCKET=$work/run/api.sock /usr/bin/timeout 5 $binary gpus --json >"$work/reports/\$SLURM_JOB_ID" 2>/dev/null
exit 0
P
cat >"$work/task_prolog.sh" <<P
#!/bin/sh
# TaskProlog: a line "export NAME=VALUE" changes the task's environment, a line "print TEXT" goes to its output.
export HF_MEM_PROBE_SOCKET=$work/run/api.sock
echo "export FREE_MIB=\$($binary free --on 0 2>/dev/null || echo unknown)"
echo "print hf-mem-probe: device 0 has \$($binary free --on 0 --unit GiB 2>/dev/null || echo '?') GiB available"
P
cat >"$work/job.sh" <<P
#!/bin/sh
#SBATCH --gres=gpu:1
export HF_MEM_PROBE_SOCKET=$work/run/api.sock
$binary fits $work/model "\$@" --json >"$work/jobs/\$SLURM_JOB_ID.json"
code=\$?
if [ \$code != 0 ]; then
    echo "not started: hf-mem-probe exit \$code"
    exit \$code
fi
srun sh -c 'echo "serving, FREE_MIB=\$FREE_MIB"'
P
# The command for a node whose daemon sees more devices than the job has. The job prints its devices and the devices of the
# answer.
cat >"$work/own_gpu.sh" <<P
#!/bin/sh
#SBATCH --gres=gpu:1
export HF_MEM_PROBE_SOCKET=$work/run/api.sock PATH=$work/bin:\$PATH
hf-mem-probe fits $work/model --context 8192 --on "\$(nvidia-smi --query-gpu=uuid --format=csv,noheader -i "\$SLURM_JOB_GPUS" | paste -sd,)" --json >"$work/jobs/\$SLURM_JOB_ID.json" || exit \$?
uuid=\$(python3 -c 'import json, sys; print(*(device["uuid"] for device in json.load(sys.stdin)["placement"]["devices"]))' <"$work/jobs/\$SLURM_JOB_ID.json")
echo "given \$SLURM_JOB_GPUS, answered for \$uuid"
while [ -e "$work/jobs/hold" ]; do sleep 0.1; done
P
# Replaces NVIDIA's program. It supports the one call of that section and answers with the daemon's declared devices.
cat >"$work/bin/nvidia-smi" <<P
#!/usr/bin/env python3
import json, subprocess, sys
assert sys.argv[1:4] == ["--query-gpu=uuid", "--format=csv,noheader", "-i"] and len(sys.argv) == 5, sys.argv
devices = json.loads(subprocess.run(["$binary", "gpus", "--json"], capture_output=True, check=True).stdout)["devices"]
for index in sys.argv[4].split(","):
    print(next(device["uuid"] for device in devices if device["index"] == int(index)))
P
chmod 755 "$work"/*.sh "$work/bin/nvidia-smi"

cat >"$work/slurm.conf" <<C
ClusterName=probe
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/run/munge.sock
SlurmctldPort=16817
SlurmctldPidFile=$work/run/slurmctld.pid
SlurmctldLogFile=$work/log/slurmctld
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool/%n
SlurmdPidFile=$work/run/%n.pid
SlurmdLogFile=$work/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
GresTypes=gpu
Prolog=$work/prolog.sh
PrologFlags=Alloc
TaskProlog=$work/task_prolog.sh
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=1000 Gres=gpu:l4:4
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17002 CPUs=2 RealMemory=1000 Gres=gpu:l4:2
PartitionName=all Nodes=n1,n2 Default=YES
C
cat >"$work/gres.conf" <<C
AutoDetect=off
NodeName=n1 Name=gpu Type=l4 File=$work/dev/nvidia[0-3]
NodeName=n2 Name=gpu Type=l4 File=$work/dev/nvidia[4-5]
C
export SLURM_CONF=$work/slurm.conf

say "two nodes"
dd if=/dev/urandom of="$work/run/munge.key" bs=1024 count=1 status=none; chmod 400 "$work/run/munge.key"
munged --force --socket="$work/run/munge.sock" --key-file="$work/run/munge.key" --pid-file="$work/run/munged.pid" \
    --log-file="$work/log/munged" --seed-file="$work/run/munge.seed" 2>/dev/null
slurmctld -D -c -f "$SLURM_CONF" 2>/dev/null & started+=($!)
for node in n1 n2; do slurmd -D -N $node -f "$SLURM_CONF" 2>/dev/null & started+=($!); done
idle() { [ "$(sinfo -h -o '%T')" = idle ]; }
until_true 30 idle || { sinfo; tail -5 "$work/log/slurmctld"; exit 1; }
expect "nodes" "2 idle" "$(sinfo -h -o '%D %T')"

daemon
submit() { sbatch --parsable --wait -o "$work/jobs/out" "$work/job.sh" "$@" 2>&1 || true; }
say "a job that fits"
job=$(submit | head -1)
sed 's/^/   /' "$work/jobs/out"
expect "job state and exit code" "COMPLETED 0:0" "$(scontrol show job "$job" | grep -oE 'JobState=[A-Z]+|ExitCode=[0-9:]+' | cut -d= -f2 | tr '\n' ' ' | sed 's/ $//')"
grep -q 'FREE_MIB=24' "$work/jobs/out" && expect "TaskProlog's variable reached the task" yes yes || expect "TaskProlog's variable reached the task" yes no
expect "devices in the Prolog's report" 4 "$(grep -o '"uuid"' "$work/reports/$job" | wc -l)"

say "two jobs on one node, each asks about its own device"
touch "$work/jobs/hold"
first=$(sbatch --parsable -w n1 -o "$work/jobs/first" "$work/own_gpu.sh")
second=$(sbatch --parsable -w n1 -o "$work/jobs/second" "$work/own_gpu.sh")
until_true 20 grep -q given "$work/jobs/first" || true
until_true 20 grep -q given "$work/jobs/second" || true
rm "$work/jobs/hold"
grep -h given "$work/jobs/first" "$work/jobs/second" | sed 's/^/   /'
uuid_of() { "$binary" gpus --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["devices"][int(sys.argv[1])]["uuid"])' "$1"; }
expect "the first, of four devices" "given 0, answered for $(uuid_of 0)" "$(grep given "$work/jobs/first")"
expect "the second" "given 1, answered for $(uuid_of 1)" "$(grep given "$work/jobs/second")"
ended() { [ -z "$(squeue -h -j "$first,$second" 2>/dev/null)" ]; }
until_true 20 ended || true

say "a job that does not fit (64 concurrent sequences)"
job=$(submit --sequences 64 | head -1)
sed 's/^/   /' "$work/jobs/out"
expect "job state and exit code" "FAILED 1:0" "$(scontrol show job "$job" | grep -oE 'JobState=[A-Z]+|ExitCode=[0-9:]+' | cut -d= -f2 | tr '\n' ' ' | sed 's/ $//')"
expect "the nodes stay idle" "2 idle" "$(until_true 10 idle; sinfo -h -o '%D %T')"

say "the daemon is down"
kill "$probe"; wait "$probe" 2>/dev/null || true
job=$(submit --gpus 2x24GiB | head -1)
sed 's/^/   /' "$work/jobs/out"
expect "job state and exit code (the command answers without the daemon)" "COMPLETED 0:0" "$(scontrol show job "$job" | grep -oE 'JobState=[A-Z]+|ExitCode=[0-9:]+' | cut -d= -f2 | tr '\n' ' ' | sed 's/ $//')"
expect "the nodes are not drained" "2 idle" "$(until_true 10 idle; sinfo -h -o '%D %T')"

printf '\n%s\n' "$([ $failures = 0 ] && echo 'all passed' || echo "$failures failed")"
[ $failures = 0 ]
