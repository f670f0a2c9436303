#!/bin/bash
# The 20 test runs of an ensemble, each a task of one array. From the project's folder:
#     mkdir -p logs && sbatch jobs/02_generate_test_data.sh
# CONFIG, MACHINE (a site's name), OUTPUTS may be set; other runs: sbatch --array=0-N jobs/...
#SBATCH --job-name=test
#SBATCH --array=0-19
#SBATCH --ntasks=1
#SBATCH --time=00:30:00
#SBATCH --mem=4G
#SBATCH --output=logs/test_%a.out
set -euo pipefail
mkdir -p logs
. .venv/bin/activate
exec python -m scaled_mpi.run "${CONFIG:-configs/oscar.yaml}" \
    ${MACHINE:+machine="$MACHINE"} ${OUTPUTS:+--outputs "$OUTPUTS"} \
    --member "test:$SLURM_ARRAY_TASK_ID"
