#!/bin/sh
# On a machine with a GPU: the equality tests, then the benchmark, then the tables of bench/GPU.md. One command:
#
#   bench/gpu_check.sh [TEXT]          TEXT: UTF-8 or .xz; default ../shared/data/featured.txt.xz or .bench/featured.txt.xz
#
# PYTHON, SIZES (1M,5M,20M,135M,540M), CPU_UP_TO (20M), WEIGHTS_UP_TO (20M), REPEATS (5), TESTS_S (300: the tests are stopped then) and
# OUT (a folder that also gets the JSON, the log and GPU.md, whatever fails) may be set. Takes some five minutes on an H200 host.
# Status: that of the tests; 3 where no test found a device; else that of the benchmark.
set -u
cd "$(dirname "$0")/.." || exit 1
if [ -z "${PYTHON:-}" ]; then
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
OUT=${OUT:-${TMPDIR:-/tmp}/charstat-gpu-check}
TESTS_S=${TESTS_S:-300}
mkdir -p "$OUT" || exit 1

timeout -k 10 "$TESTS_S" "$PYTHON" -m pytest -m gpu tests/test_gpu.py tests/test_gpu_weights.py -q -rs -p no:cacheprovider \
  >"$OUT/tests.log" 2>&1
status=$?
summary=$(tail -n 1 "$OUT/tests.log")
tail -n 15 "$OUT/tests.log"
if [ $status -eq 124 ] || [ $status -eq 137 ]; then summary="stopped after $TESTS_S s"; fi
case $summary in
  *passed*) ;;
  *) [ $status -ne 0 ] || status=3 ;;
esac

PYTHONUNBUFFERED=1 "$PYTHON" bench/gpu_build.py ${1:+--text "$1"} \
  --sizes "${SIZES:-1M,5M,20M,135M,540M}" --cpu-up-to "${CPU_UP_TO:-20M}" --weights-up-to "${WEIGHTS_UP_TO:-20M}" \
  --repeats "${REPEATS:-5}" --json "$OUT/gpu_build.json" --markdown bench/GPU.md --tests "pytest -m gpu: $summary"
measured=$?
cp bench/GPU.md "$OUT/GPU.md"
echo "tables: bench/GPU.md; everything: $OUT"
[ $status -ne 0 ] || status=$measured
exit $status
