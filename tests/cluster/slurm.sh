#!/bin/bash
# Start SLURM on this machine alone, on loopback, wait until it has done a batch job, and end it again:
#   tests/cluster/slurm.sh ARGUMENT-OF-SBATCH...
# Needs root and Debian's packages slurm-wlm and munge. The state lies in a temporary folder.
set -eu
home=$(mktemp -d /tmp/slurm.XXXXXX)
chmod 755 "$home"
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$home"
}
trap finish EXIT
mkdir -p "$home"/{munge,spool,state}
chmod 700 "$home/munge"
head -c 1024 /dev/urandom >"$home/munge/key"
chmod 600 "$home/munge/key"
host=$(hostname -s)
cat >"$home/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
SlurmdParameters=config_overrides
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$home/slurm.conf
munged --foreground --force --socket "$home/munge.socket" --key-file "$home/munge/key" --pid-file "$home/munge/pid" \
    --seed-file "$home/munge/seed" --log-file "$home/munge/log" 2>/dev/null &
started+=($!)
until [ -S "$home/munge.socket" ]; do sleep 0.2; done
slurmctld -D >"$home/slurmctld.log" 2>&1 &
started+=($!)
slurmd -D >"$home/slurmd.log" 2>&1 &
started+=($!)
for _ in $(seq 60); do
    sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break
    sleep 0.5
done
if ! sinfo --noheader --format=%T | grep -q idle; then
    tail -n 20 "$home"/slurm*.log >&2
    exit 1
fi
job=$(sbatch --parsable "$@")
# sbatch --wait may look half a minute later
until state=$(squeue --noheader --states=all --format=%T --job "$job") &&
    [[ -n $state && $state != @(PENDING|CONFIGURING|RUNNING|COMPLETING) ]]; do sleep 0.2; done
echo "the job ended: $state"
[ "$state" = COMPLETED ]
