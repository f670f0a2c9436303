#!/bin/bash
# Submits the three jobs of an ensemble, the last to start when both arrays have ended.
#     bash jobs/00_submit_all.sh          CONFIG, OUTPUTS, TRAIN (0-99) and TEST (0-19) may be set
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p logs          # Slurm makes no folder for its own output
train=$(sbatch --parsable --array="${TRAIN:-0-99}" jobs/01_generate_training_data.sh)
test=$(sbatch --parsable --array="${TEST:-0-19}" jobs/02_generate_test_data.sh)
last=$(sbatch --parsable --dependency="afterany:$train:$test" jobs/03_train_pod_mvar.sh)
echo "submitted: train $train, test $test, pod_mvar $last"
