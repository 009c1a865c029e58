#!/bin/sh
# All GPU measurements in under 8 minutes, on a machine that has Python with PyTorch: benchmarks/gpu.sh [WHEELS] [OPTIONS].
# WHEELS: folder of wheels for packages that are missing there; installed beside the repository's results, without a
# network. OPTIONS go to benchmarks/gpu.py. Writes $OUT/gpu.json (results/gpu/gpu.json if OUT is not set).
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ $# -gt 0 ] && [ -d "$1" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    $python -m pip install --quiet --no-index --no-deps --no-compile --find-links "$1" --target "$site" "$1"/*.whl
    PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    export PYTHONPATH
    shift
fi
export PYTHONUNBUFFERED=1
$python -m benchmarks.gpu "$@"
