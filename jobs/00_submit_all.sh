#!/bin/bash
# Submits the three jobs of an ensemble, the last to start when both arrays have ended.
#     bash jobs/00_submit_all.sh
# CONFIG, OUTPUTS, TRAIN (0-99), TEST (0-19) and MACHINE may be set; the account and the partition in
# configs/machines/MACHINE.yaml are then the jobs', modules those loaded where this is typed.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p logs          # Slurm makes no folder for its own output
site=()
for key in account partition; do
    file=configs/machines/${MACHINE:-local}.yaml
    value=$(sed -n "s/^$key: *\"\{0,1\}\([A-Za-z0-9_.-]*\).*/\1/p" "$file")
    [ -z "$value" ] || site+=("--$key=$value")
done
train=$(sbatch --parsable ${site[@]+"${site[@]}"} \
    --array="${TRAIN:-0-99}" jobs/01_generate_training_data.sh)
test=$(sbatch --parsable ${site[@]+"${site[@]}"} \
    --array="${TEST:-0-19}" jobs/02_generate_test_data.sh)
last=$(sbatch --parsable ${site[@]+"${site[@]}"} \
    --dependency="afterany:$train:$test" jobs/03_train_pod_mvar.sh)
echo "submitted: train $train, test $test, pod_mvar $last"
