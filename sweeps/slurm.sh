#!/bin/bash
# A sweep under SLURM: one scheduler and one Dask worker for each task, over TLS with keys made for this job.
#   sbatch --ntasks=8 --cpus-per-task=4 --gpus-per-task=1 sweeps/slurm.sh sweeps/mosi.yaml results/sweep-mosi
# The kit, the current folder and the results must be on a file system that all nodes see. A job that was cut off is
# submitted again as it was: finished cells stay.
#SBATCH --job-name=imder
set -eu
grid=$1 out=$2
bin=$PWD/.venv/bin
[ -x "$bin/imder" ] || bin=$(dirname "$(command -v imder)")
keys=$(mktemp -d "$PWD/.imder-job.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$keys"' EXIT

openssl req -x509 -newkey rsa:3072 -nodes -days 30 -subj /CN=imder -keyout "$keys/key" -out "$keys/cert" 2>/dev/null
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$keys/cert
for role in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$keys/cert" "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$keys/key"
done

"$bin/dask" scheduler --protocol tls --port 0 --no-dashboard --scheduler-file "$keys/scheduler.json" &
gpu=()
[ -z "${SLURM_GPUS_PER_TASK:-}" ] || gpu=(--resources GPU=1)
# srun does not take --cpus-per-task over from sbatch
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "$bin/dask" worker --protocol tls --scheduler-file "$keys/scheduler.json" --nthreads 1 --memory-limit 0 \
    --no-dashboard --local-directory "${TMPDIR:-/tmp}" "${gpu[@]}" &
workers=$!
"$bin/imder" sweep "$grid" --out "$out" --scheduler-file "$keys/scheduler.json" &
sweep=$!
wait -n "$workers" "$sweep" || true
if kill -0 "$sweep" 2>/dev/null && ! kill -0 "$workers" 2>/dev/null; then
    echo "all workers are gone: submit the same line again" >&2  # the sweep would wait for new ones
    exit 1
fi
wait "$sweep"
