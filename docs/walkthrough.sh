#!/bin/sh
# Continuous delivery from the beginning, with real trainings: about five minutes on two cores.
#
#     sh docs/walkthrough.sh WORKFOLDER
#
# A first version is delivered. A new recording, a changed setting and a changed source line each deliver one more
# version. The gate rejects a change that makes the model bad. Then one version is rolled back and one is pinned. The
# voices are SYNTHETIC. The sources are copied first, so that the checkout does not change.
set -eu

[ $# -eq 1 ] || { echo "usage: sh docs/walkthrough.sh WORKFOLDER" >&2; exit 2; }
[ ! -e "$1/delivery.yaml" ] || { echo "$1 holds a walkthrough already: name another folder" >&2; exit 2; }
checkout=$(cd "$(dirname "$0")/.." && pwd)
python="$checkout/.venv/bin/python"
mkdir -p "$1/src" && cd "$1"
cp -Rp "$checkout/spira" "$checkout/components" "$checkout/pipelines" "$checkout/requirements.lock" src/
export PYTHONPATH="$PWD/src"

say() { printf '\n=== %s\n' "$1"; }
spira() { printf '$ spira %s\n' "$*"; "$python" -m spira "$@" 2>&1; }

say "A data set, training settings, and the settings of continuous delivery"
spira demo voices
cat > model.yaml <<'END'
training:
  seeds: [42]
  max_epochs: 30
  warmup_steps: 50
  learning_rate: 0.002
evaluation: {bootstrap_samples: 500, noise_draws: 2}
END
spira deliver init --data voices
sed -i 's/^# config: model.yaml/config: model.yaml/; s/^quiet_seconds: 10/quiet_seconds: 2/' delivery.yaml

say "1. The first delivery"
spira deliver tick --wait
spira deliver why
spira deliver status

say "2. A new recording"
row=$(sed -n 2p voices/metadata_train.csv)
"$python" - "voices/${row%%,*}" voices/recordings/train/new.wav <<'END'
import sys
import soundfile
samples, rate = soundfile.read(sys.argv[1])
soundfile.write(sys.argv[2], 0.7 * samples, rate)  # the same voice, farther from the microphone
END
echo "recordings/train/new.wav,${row#*,}" >> voices/metadata_train.csv
spira deliver tick --wait
spira deliver why

say "3. Another learning rate"
sed -i 's/learning_rate: 0.002/learning_rate: 0.0015/' model.yaml
spira deliver tick --wait
spira deliver why

say "4. Another line of code"
sed -i 's/torch.optim.Adam(/torch.optim.AdamW(/' src/spira/training/train.py
spira deliver tick --wait
spira deliver why

say "5. A change that makes the model bad: training without ward noise. The gate rejects it; version 4 still serves"
cp model.yaml good.yaml
echo "noise: {train_controls: 0, train_patients: 0}" >> model.yaml
spira deliver tick --wait
spira deliver why
spira deliver status

say "6. The good settings again: they were trained already, so nothing is trained"
cp good.yaml model.yaml
spira deliver tick --wait

say "7. Version 4 turns out bad in use: it is rolled back for good; then version 2 is pinned"
spira deliver rollback --reason "the ward hears false alarms"
spira deliver pin 2 --reason "compared with paper records this week"
spira deliver status
spira deliver unpin

say "8. The history"
spira deliver history
