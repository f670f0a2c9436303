#!/bin/bash
# POD, autoregression, forecasts and the page, once the members are there (what is missing is made).
#     mkdir -p logs && sbatch jobs/03_train_pod_mvar.sh
#SBATCH --job-name=pod_mvar
#SBATCH --ntasks=1
#SBATCH --time=01:00:00
#SBATCH --mem=16G
#SBATCH --output=logs/training.out
set -euo pipefail
mkdir -p logs
. .venv/bin/activate
exec python -m scaled_mpi.run "${CONFIG:-configs/oscar.yaml}" \
    ${MACHINE:+machine="$MACHINE"} ${OUTPUTS:+--outputs "$OUTPUTS"}
