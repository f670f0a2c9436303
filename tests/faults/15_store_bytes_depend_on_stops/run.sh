#!/usr/bin/env bash
# A stop between two checkpoints leaves other files (same numbers), and another halo.exchanges
# Run from the project's root, in its environment. Prints HELD or FAILED.
set -u; OUT=$(mktemp -d); trap 'rm -rf "$OUT"' EXIT
TINY="data.runs=2 data.frames=6 data.burn_in=20 test.burn_in=40 surrogate.width=4 surrogate.patch=8 surrogate.training.steps=6 surrogate.training.batch=4 surrogate.training.micro_batches=2 surrogate.training.validate_every=3 coupling.jumps=4 coupling.compare=1 coupling.checkpoint=2 domain.shape=[32,32]"
RUN="python -m scaled_mpi.run configs/smoke/ddm.yaml $TINY --outputs $OUT"
$RUN --stage couple >/dev/null 2>&1; a=$(cat $OUT/artefacts/couple-*/surrogate.json | sha256sum); x=$(grep -h '"halo.exchanges"' $OUT/artefacts/couple-*/facts.jsonl | grep -o '"value": [0-9]*')
cat >$OUT/s.py <<'P'
import sys,scaled_mpi.run as r, scaled_mpi.coupling.forecasting as c
n=[0]
def stop(comm): n[0]+=1; return n[0]==1
c.stop_agreed=stop
sys.exit(r.main(sys.argv[1:]))
P
rm -rf $OUT/artefacts/couple-*; python $OUT/s.py configs/smoke/ddm.yaml $TINY --stage couple --outputs $OUT >/dev/null 2>&1; $RUN --stage couple >/dev/null 2>&1
b=$(cat $OUT/artefacts/couple-*/surrogate.json | sha256sum); y=$(grep -h '"halo.exchanges"' $OUT/artefacts/couple-*/facts.jsonl | grep -o '"value": [0-9]*')
[ "$a" = "$b" ] && [ "$x" = "$y" ] && echo HELD || echo "FAILED: index equal: $([ "$a" = "$b" ] && echo yes || echo no); exchanges $x, $y"
