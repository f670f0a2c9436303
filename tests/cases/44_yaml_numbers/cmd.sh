cd "$PRODUCT"; for o in seed=010 data.runs=1:30; do "$PY" - "$o" <<'P'
import sys
from scaled_mpi.experiments import load
e=load('configs/smoke/ddm.yaml',[sys.argv[1]]); print(sys.argv[1],'-> seed',e.seed,'runs',e.data.runs)
P
done
