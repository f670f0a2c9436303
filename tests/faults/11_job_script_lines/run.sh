#!/usr/bin/env bash
# A line break in account or partition becomes a line of the job script (needs dask-jobqueue)
# Run from the project's root, in its environment. Prints HELD or FAILED.
set -u; OUT=$(mktemp -d); trap 'rm -rf "$OUT"' EXIT
TINY="data.runs=2 data.frames=6 data.burn_in=20 test.burn_in=40 surrogate.width=4 surrogate.patch=8 surrogate.training.steps=6 surrogate.training.batch=4 surrogate.training.micro_batches=2 surrogate.training.validate_every=3 coupling.jumps=4 coupling.compare=1 coupling.checkpoint=2 domain.shape=[32,32]"
RUN="python -m scaled_mpi.run configs/smoke/ddm.yaml $TINY --outputs $OUT"
python - <<'P'
from scaled_mpi.engine.launch import Machine, make_cluster
from scaled_mpi.config import InputError, parse
bad=0
for kind in ("slurm","pbs"):
    for key in ("account","partition"):
        try:
            c=make_cluster(kind,parse(Machine,{key:"x\ntouch PWNED"})); s=c.job_script(); c.close()
            if "touch PWNED" in s.splitlines(): bad+=1; print(kind,key,"-> a line of its own")
        except InputError: pass
print("HELD" if not bad else f"FAILED: {bad} of 4")
P
rmdir logs 2>/dev/null
