mkdir -p configs/machines; cp "$PRODUCT/configs/smoke/oscar.yaml" .
printf '%s\n' "account: My Project" > configs/machines/m.yaml
export PYTHONPATH=$PYTHONPATH:$DASK

"$PY" - slurm <<'P'
import sys
from scaled_mpi.engine.launch import read_machine, make_cluster
c=make_cluster(sys.argv[1],read_machine("m")); print(c.job_script()); c.close()
P
