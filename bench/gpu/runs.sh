#!/usr/bin/env bash
# Everything that a GPU is to say, in four runs of ten minutes, on a machine without a network that forgets.
#
#   runs.sh pack       before, where there is a network, ten minutes and more: build/carry, of which all runs want cuda.txz.
#                      BEFORE=COMMIT: and the library of that commit, for compare
#   runs.sh check      device tests, pytest, compute-sanitizer; wants tests.txz
#   runs.sh ops        each op beside its peers, and cross-entropy of the first heads; wants peers.txz, as does heads
#   runs.sh heads      distances, then cross-entropy goes on where it ended
#   runs.sh training   a model of 100 M parameters with both heads
#   runs.sh profile    the time of each kernel of a head, and what ncu says of its products, two minutes
#   runs.sh compare    the time of each kernel, by this library and by the one before, in both orders, three minutes;
#                      wants before.txz
#
# TIME: seconds that check and ops may take, where ten minutes are too many. What it has goes to $OUT after each part, as
# archives of bench/results and logs: unpack them in the project's folder.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH:/usr/local/cuda/bin" PYTHONUNBUFFERED=1
OUT=${OUT:-build/gpu/out} device=build/gpu/device site=$PWD/build/gpu/site logs=build/gpu/log keep=build/keep
mkdir -p "$OUT" $device $logs $keep bench/results

pack() {
  set -e
  mkdir -p build/carry build/pack/peers
  git rev-parse HEAD > $device/commit
  cmake -G Ninja -S tests/device -B $device -DLOSSK_GPU=90a -DCMAKE_BUILD_TYPE=Release
  cmake --build $device -j2
  library . $device
  tar cJf build/carry/tests.txz -C $device conformance kernels
  tar cJf build/carry/cuda.txz -C $device _cuda.so commit
  if [ -n "${BEFORE:-}" ]; then
    rm -rf build/pack/before
    [ -d build/pack/source ] || git worktree add --force --detach build/pack/source "$BEFORE"
    git -C build/pack/source checkout --detach "$BEFORE"
    library build/pack/source build/pack/before
    git -C build/pack/source archive "$BEFORE" | tar x -C build/pack/before --one-top-level=source
    tar cJf build/carry/before.txz -C build/pack before
  fi
  [ -d build/peers ] || python3 -m bench.gpu peers
  python3 -c "from bench.gpu.peers import *; join(WHEELS, ROOT / 'build/pack/wheels')"
  for wheel in build/pack/wheels/*.whl; do unzip -qo "$wheel" -d build/pack/peers; done
  tar c -C build/pack peers | xz --x86 --lzma2=preset=9e,dict=192MiB > build/carry/peers.txz
  ls -l build/carry
}

# _cuda.so of a source folder, into another.
library() {
  rm -f build/pack/lossk-*.whl
  pip wheel "$1" --no-build-isolation --no-deps --no-index -w build/pack \
    -Cbuild-dir="$PWD/build/pack/package-$(basename "$2")" -Ccmake.define.LOSSK_CUDA=ON -Ccmake.define.LOSSK_SM=90
  unzip -o -j build/pack/lossk-*.whl lossk/_cuda.so -d "$2"
}

unpack() {
  python3 -m tarfile -e "build/carry/$1.txz" "$2"
}

# Its CPU part is built there, for its Python; the GPU part was built here, against another torch.
package() {
  export PYTHONPATH=$site
  [ -d "$site/lossk" ] && return
  unpack cuda $device
  cp $device/commit build/gpu/
  package_of . "$site"
  cp $device/_cuda.so "$site/lossk/"
  python3 -c "import lossk; print(lossk.build_info())"
}

# A source folder's package, without its GPU part, into another.
package_of() {
  local name=$(basename "$2")
  timeout 170 python3 -m pip install --verbose --no-build-isolation --no-deps --no-index --no-compile --upgrade \
    --target "$2" -Cbuild-dir="$PWD/build/gpu/package-$name" -Ccmake.define.LOSSK_CUDA=OFF "$1" > "$logs/build-$name.log" 2>&1
  echo "$name: $? at $SECONDS s"
}

check() {
  nvidia-smi -L
  unpack tests $device && chmod +x $device/*
  package &
  local package=$!
  programs 100 "" || if grep -L " failed" $logs/{conformance,kernels}.log | grep .; then # hangs: by which path?
    for path in wgmma_alone mma_sync; do programs 60 -$path LOSSK_KERNELS=$path; done
    save check
    exit
  fi
  wait $package
  package
  local left=$((${TIME:-580} - SECONDS))
  timeout -k 5 $left python3 -m pytest -m "not slow" --device=cuda -q -n 12 --ignore=tests/test_build.py \
    > $logs/pytest.log 2>&1 &
  for tool in memcheck initcheck synccheck; do
    for program in conformance kernels; do sanitize $left $tool $program; done
  done
  sanitize $left racecheck conformance $(python3 -c "from bench.gpu.check import *; print(*NO_HAZARDS['racecheck', 'conformance'])")
  for share in 0 1 2 3 4 5; do sanitize $left racecheck kernels --share $share/6; done
  wait
  tail -n 3 $logs/*.log | cut -c1-200
  save check
}

# Both device test programs at once: seconds at most, a suffix for their logs, the environment.
programs() {
  local limit=$1 suffix=$2 failed=0
  shift 2
  for program in conformance kernels; do
    env "$@" timeout -k 5 "$limit" $device/$program > $logs/$program"$suffix".log 2>&1 &
    local "$program"=$!
  done
  wait $conformance || failed=1
  wait $kernels || failed=1
  tail -n 3 $logs/{conformance,kernels}"$suffix".log | cut -c1-300
  return $failed
}

# In the background: seconds at most, the tool, the program and its arguments.
sanitize() {
  local limit=$1 tool=$2 program=$3
  shift 3
  local log=$logs/$tool-$program$(tr -cd '0-9' <<< "$*").log
  LOSSK_SEEDS=1 timeout -k 5 "$limit" compute-sanitizer --tool "$tool" --error-exitcode 1 \
    $device/"$program" "$@" > "$log" 2>&1 &
}

profile() {
  local report=$logs/profile
  package
  timeout 60 python3 -m bench.gpu.profile > $report-kernels.txt 2>&1
  timeout -k 5 100 ncu --clock-control none --set full --import-source no -k regex:product -c 5 -o $report -f \
    python3 -m bench.gpu.profile reference "" recompute > $logs/ncu.log 2>&1
  ncu --import $report.ncu-rep --page details > $report.txt
  save profile
}

compare() {
  package
  unpack before build/gpu
  package_of build/gpu/before/source build/gpu/site-before
  cp build/gpu/before/_cuda.so build/gpu/site-before/lossk/
  local turn=0
  for which in site-before site site site-before; do
    turn=$((turn + 1))
    for n in 8192 128; do
      PYTHONPATH=$PWD/build/gpu/$which timeout 60 python3 -m bench.gpu.profile reference $n \
        > "$logs/compare-$turn-$which-$n.log" 2>&1
    done
  done
  save compare
}

save() {
  find bench/results -mindepth 1 -maxdepth 1 ! -name cpu -exec cp -r {} $keep/ \;
  tar czf "$OUT/$1.tgz" bench/results $logs
  echo "$1 at $SECONDS s"
}

# Seconds that this part may take, the name of its log, and what python -m bench.gpu bench is told.
bench() {
  local limit=$1 name=$2
  shift 2
  timeout -k 5 "$limit" python3 -m bench.gpu bench --commit "$(cat build/gpu/commit || git rev-parse HEAD)" "$@" > $logs/"$name".log 2>&1
  echo "$name: $?"
  save "$name"
}

ops() {
  bench 250 ops --only ceilings --only head --only live --only distillation
  local left=$((${TIME:-530} - SECONDS))
  bench $left heads-8192 --only cross_entropy_8192 --minutes $(((left - 50) / 60))
}

heads() {
  bench 140 distances --only harmonic --only elementwise
  bench 150 heads-8192-more --only cross_entropy_8192 --minutes 2
  bench 120 heads-2048 --only cross_entropy_2048 --minutes 1.7
  bench $((540 - SECONDS)) heads-16384 --only cross_entropy_16384 --minutes 1.7
}

training() {
  bench 330 training --only training
}

case ${1:-} in
  pack | check | profile | compare) "$1" ;;
  ops | heads | training)
    [ -d build/gpu/peers ] || [ "$1" = training ] || unpack peers build/gpu
    package
    cp -r $keep/. bench/results/
    "$1"
    tail -n 60 $logs/*.log | cut -c1-160
    ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
