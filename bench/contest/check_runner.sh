#!/bin/bash
# Drives the gate and full bundles by the contest's own runner, run_eval.py of its branches main and dev, unmodified.
#
#   bench/contest/check_runner.sh CLONE DATA          CLONE: a git directory or clone of the contest; DATA: wiki.{train,valid}.raw
#
# PYTHON (with numba; for dev's CPU figure with codecarbon), PRESETS (gate full), OTHER_PYTHONS (python3.11 python3.12 python3.13: those that
# are there), NUMPY_ONLY (a Python that has numpy and no numba, and may install it; skipped without), BRANCHES (main dev), CACHE (a cache folder to use, which
# may hold the compiled kernels already; otherwise a new one) and OUT (a folder for logs) may be set.
# Every line says what was tried, the status that is wanted, and the one that came. Status: 0 if all are as wanted.
# Takes some 15 minutes on two idle cores with 135 M characters, 4 with PRESETS=gate, most of it compiling and reading the text.
set -u
CLONE=$(realpath "$1") DATA=$(realpath "$2")
ROOT=$(realpath "$(dirname "$0")/../..")
PYTHON=${PYTHON:-python3}
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"; OUT=$(realpath "$OUT")
WORK=$(mktemp -d); trap 'chmod -R u+w "$WORK"; rm -rf "$WORK"' EXIT
failed=0

for branch in ${BRANCHES:-main dev}; do
  mkdir -p "$WORK/$branch"
  git -C "$CLONE" archive "$branch" run_eval.py wikitext.py fixtures/tiny | tar -x -C "$WORK/$branch"
done
for preset in gate full; do
  PYTHONPATH=$ROOT $PYTHON -m charstat.cli bundle --out "$WORK/$preset" --preset $preset --author @charstat --json >/dev/null || exit 1
done
export XDG_CACHE_HOME=${CACHE:-$WORK/cache}
GATE=$WORK/gate/submission.py

# A small text for what is not about accuracy: three million characters, and the floor of 0.70 with them.
mkdir -p "$WORK/small" "$WORK/few"
head -c 3000000 "$DATA/wiki.train.raw" | iconv -c -f utf-8 -t utf-8 >"$WORK/small/wiki.train.raw"
cp "$DATA/wiki.valid.raw" "$WORK/small/wiki.valid.raw"

# attempt NAME WANTED_STATUS WANTED_TEXT BRANCH PYTHON SUBMISSION DATA [run_eval's options]; ENV holds variables for `env`
ENV=()
attempt() {
  local name=$1 status=$2 text=$3 branch=$4 python=$5 submission=$6 data=$7; shift 7
  local log="$OUT/$name-$branch.log" json="$OUT/$name-$branch.json"
  rm -f "$json"
  (cd "$WORK/$branch" && env ${ENV[@]+"${ENV[@]}"} "$python" run_eval.py --data-dir "$data" --submission "$submission" --results-json "$json" \
    --progress-every 0 "$@") >"$log" 2>&1
  local got=$? verdict=ok
  if [ $got -ne "$status" ] || ! cat "$log" "$json" 2>/dev/null | grep -q "$text"; then verdict=FAILED; failed=1; fi
  local figures
  figures=$(grep -h "val  char-accuracy\|training duration\|training energy" "$log" | sed 's/ *: */ /; s/  */ /g' | paste -sd, -)
  printf '%-7s %-22s %-5s status %s (wanted %s)  %s\n' "$verdict" "$name" "$branch" "$got" "$status" "$figures"
}

RULES=(--max-train-seconds 300 --acc-min 0.70)
QUICK=(--max-test-chars 2000)
for branch in ${BRANCHES:-main dev}; do
  for preset in ${PRESETS:-gate full}; do
    attempt "$preset" 0 '"val_char_accuracy": 0.7' $branch $PYTHON "$WORK/$preset/submission.py" "$DATA" "${RULES[@]}"
  done
  attempt tiny 0 val_char_accuracy $branch $PYTHON "$GATE" "$WORK/$branch/fixtures/tiny"
  attempt below-the-floor 2 val_accuracy_below_floor $branch $PYTHON "$GATE" "$WORK/small" "${RULES[@]}" "${QUICK[@]}"
  attempt time-limit 2 train_time_exceeded $branch $PYTHON "$GATE" "$DATA" --max-train-seconds 0.3 "${QUICK[@]}"

  printf 'import wikitext\n%s\ndef train(train_text):\n    return Model()\n' 'class Model(wikitext.CharModel):
    def reset(self): pass
    def predict(self): return ""
    def observe(self, char): pass' >"$WORK/no_op.py"
  attempt no-op 2 val_accuracy_below_floor $branch $PYTHON "$WORK/no_op.py" "$WORK/small" "${RULES[@]}" "${QUICK[@]}"

  ENV=(PIP_NO_INDEX=1 PIP_FIND_LINKS= PYTHONPATH="$WORK/no-numba" XDG_CACHE_HOME="$WORK/no-index")
  mkdir -p "$WORK/no-numba/numba"; echo 'raise ImportError("hidden")' >"$WORK/no-numba/sitecustomize.py"
  printf 'import sys\nclass Hide:\n    def find_spec(self, name, path=None, target=None):\n        if name == "numba": raise ModuleNotFoundError(name)\nsys.meta_path.insert(0, Hide())\nimport importlib.util as u\nfound = u.find_spec\nu.find_spec = lambda name, package=None: None if name == "numba" else found(name, package)\n' >"$WORK/no-numba/sitecustomize.py"
  rmdir "$WORK/no-numba/numba"
  attempt missing-index 1 'numba is missing, and it cannot be installed' $branch $PYTHON "$GATE" "$WORK/small" "${QUICK[@]}"

  # Places that cannot be written: what is compiled goes into the temporary directory, which gets what the cache holds.
  mkdir -p "$WORK/read-only" "$WORK/temp-$branch"; chmod 555 "$WORK/read-only"
  cp -rp "$XDG_CACHE_HOME/charstat" "$WORK/temp-$branch/charstat-$(id -u)"; chmod 700 "$WORK/temp-$branch/charstat-$(id -u)"
  touch "$WORK/a-file"
  ENV=(HOME="$WORK/read-only" XDG_CACHE_HOME="$WORK/a-file/cache" TMPDIR="$WORK/temp-$branch")
  attempt read-only-home 0 'cannot be used' $branch $PYTHON "$GATE" "$WORK/small" "${QUICK[@]}"
  attempt read-only-home-again 0 'warm after [0-9]\.' $branch $PYTHON "$GATE" "$WORK/small" "${QUICK[@]}"
  left=$(find "$WORK/temp-$branch" -mindepth 1 -maxdepth 1 | wc -l)
  [ "$left" -eq 1 ] || { echo "FAILED  $left entries in the temporary directory, not 1"; failed=1; }
  ENV=(-u HOME -u XDG_CACHE_HOME TMPDIR="$WORK/temp-$branch" HOME=)
  attempt no-home 0 val_char_accuracy $branch $PYTHON "$GATE" "$WORK/small" "${QUICK[@]}"
  [ ! -e "$WORK/$branch/~" ] || { echo "FAILED  a directory named ~"; failed=1; }
  ENV=()

  cp "$GATE" "$WORK/renamed_$branch.py"
  attempt renamed 0 val_char_accuracy $branch $PYTHON "$WORK/renamed_$branch.py" "$WORK/small" "${QUICK[@]}"
  cat >"$WORK/thrice.py" <<EOF
import importlib.util
for name in ("first", "second", "third"):
    spec = importlib.util.spec_from_file_location(name, "$GATE")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
train = module.train
EOF
  attempt imported-three-times 0 val_char_accuracy $branch $PYTHON "$WORK/thrice.py" "$WORK/small" "${QUICK[@]}"

  for python in ${OTHER_PYTHONS:-python3.11 python3.12 python3.13}; do
    if command -v "$python" >/dev/null && "$python" -c 'import numba' 2>/dev/null; then
      ENV=(XDG_CACHE_HOME="$WORK/cache-$(basename "$python")")
      attempt "$(basename "$python")" 0 val_char_accuracy $branch "$python" "$GATE" "$WORK/small" "${QUICK[@]}"
      ENV=()
    else
      echo "skipped $python with numba: not here"
    fi
  done
  if [ -n "${NUMPY_ONLY:-}" ]; then
    ENV=(XDG_CACHE_HOME="$WORK/numpy-only")
    attempt numpy-only 0 'pip puts it into\|val_char_accuracy' $branch "$NUMPY_ONLY" "$GATE" "$WORK/small" "${QUICK[@]}"
    ENV=()
  else
    echo "skipped numpy only: NUMPY_ONLY is not set"
  fi
done
echo "logs and results: $OUT"
exit $failed
