#!/usr/bin/env bash
# Checks and times the CUDA engine on a card, in about four minutes.
#
#   tools/cuda/card.sh build FOLDER      # with Go, anywhere: what a machine with a card needs
#   FOLDER/card.sh run REPOSITORY OUT    # there, without Go: Python with torch and transformers
#
# Writes logs and OUT/bench.json, and prints a summary. The repository gives the golden
# models and the demo's text. With CREPE_CUDA_DRIVER and CREPE_CUBLASLT naming the emulator,
# DRY=1 runs the same steps small, without a card.
set -euo pipefail
case ${1:-} in
build)
	cd "$(dirname "$0")/../.."
	mkdir -p "$2"
	export CGO_ENABLED=0
	go build -ldflags="-s -w" -o "$2/crepe" ./cmd/crepe
	go test -c -ldflags="-s -w" -o "$2/cuda.test" ./engine/cuda
	go test -c -ldflags="-s -w" -o "$2/model.test" ./model
	cp tools/cuda/peer.py tools/cuda/card.sh "$2"
	;;
run)
	here=$(cd "$(dirname "$0")" && pwd) repository=$(cd "$2" && pwd)
	mkdir -p "$3"
	out=$(cd "$3" && pwd)
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	export CREPE_TEST_CUDA=1
	shape=llama2-7b device=cuda folder=/dev/shm/crepe-bench samples=128 windows=64
	if [ -n "${DRY:-}" ]; then
		shape=tiny device=cpu folder=$work/bench samples=2 windows=1
	else
		nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
	fi
	say() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
	failed() { echo "FAILED: $*"; }

	say "operations against the reference, selection against the CPU"
	(cd "$repository/engine/cuda" && timeout 120 "$here/cuda.test" -test.v >"$out/suite.log" 2>&1) || failed "see suite.log"
	grep -E '^ *--- (FAIL|SKIP)|^(PASS|FAIL)|panic:' "$out/suite.log" || true
	say "golden models"
	(cd "$repository/model" && timeout 60 "$here/model.test" -test.v -test.run 'TestGolden$' >"$out/golden.log" 2>&1) || failed "see golden.log"
	grep -E '^ *--- FAIL|^(PASS|FAIL)|panic:' "$out/golden.log" || true

	say "the demo on both, and twice"
	cd "$work"
	for on in cpu cuda; do
		"$here/crepe" eval demo --data demo --windows $windows --device $on --compute bf16 2>&1 | grep -E '^perplexity  |crepe:' || failed "eval on $on"
		"$here/crepe" prune demo --method wanda --samples $samples --seqlen 64 --eval none --compute bf16 --device $on -o $on --overwrite 2>&1 | grep -E '^time|crepe:' || failed "prune on $on"
	done
	"$here/crepe" inspect cuda --against cpu | tail -3
	"$here/crepe" prune demo --method wanda --samples $samples --seqlen 64 --eval none --compute bf16 --device cuda -o again >/dev/null 2>&1
	cmp cuda/model.safetensors again/model.safetensors && echo "the same bytes twice" || failed "two runs differ"

	say "selection: ms and GB/s"
	(cd "$repository/engine/cuda" && timeout 60 "$here/cuda.test" -test.run XXX -test.bench Select -test.benchtime 5x 2>&1 | grep Benchmark) || failed "no benchmark"
	say "whole jobs beside PyTorch"
	mkdir -p "$work/tools/cuda" && cp "$here/peer.py" "$work/tools/cuda" && ln -s "$repository/demo" "$work/demo"
	python3 "$work/tools/cuda/peer.py" --crepe "$here/crepe" --folder "$folder" --shape $shape --device $device --out "$out/bench.json" ${DRY:+--windows 2} || failed "peer.py"
	rm -rf "$folder"
	say "done"
	;;
*)
	sed -n '2,11p' "$0"
	exit 2
	;;
esac
