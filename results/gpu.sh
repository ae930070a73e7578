#!/bin/sh
# When a GPU is at hand: sh results/gpu.sh STEP, from the repository's root, in this order. Each step takes under ten minutes.
#
#   setup            install staa; without a network, from wheels in wheels/ (filled beforehand by: pip download -d wheels …)
#   tests            the tests marked gpu
#   bench            beside SpikingJelly, snnTorch and Norse: neurons in float32 and bfloat16, layers, training steps
#   data             unpack what results/remote.py packed into parts/
#   piece RECIPE     nine minutes of a recipe; again until it says "done", then the next of the queue in results/README.md
#
# What is worth bringing home lies in $OUT (by default home/).
set -eu
OUT=${OUT:-home}
PYTHON=${PYTHON:-python3}
case "${1:-}" in
setup)
    if [ -d wheels ]; then offline="--no-index --find-links wheels --no-build-isolation"; else offline=""; fi
    $PYTHON -m pip install $offline -e . pytest hypothesis spikingjelly snntorch norse nir nirtorch matplotlib
    $PYTHON -m staa doctor
    ;;
tests) $PYTHON -m pytest -m gpu -q ;;
bench)
    $PYTHON -m benchmarks.run --device cuda --out "$OUT/bench-cuda"
    $PYTHON -m benchmarks.run --device cuda --dtype bfloat16 --only neuron --out "$OUT/bench-cuda-bfloat16"
    ;;
data) $PYTHON results/remote.py unpack parts data ;;
piece) $PYTHON results/remote.py piece "$2" --home "$OUT" ;;
*)
    sed -n '2,11p' "$0"
    exit 2
    ;;
esac
