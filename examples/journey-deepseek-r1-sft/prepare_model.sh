#!/usr/bin/env bash
# deepseek-ai/DeepSeek-R1-0528 is published in FP8. Training needs bf16: download it once and write a bf16 copy.
# Needs about 2013 GB of disk (the download and the 1342 GB copy), no GPU, hours.
#   ./prepare_model.sh [SOURCE_FOLDER]     a folder that is already downloaded is not downloaded again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

source_folder="${1:-model_fp8}"
if [[ ! -f "$source_folder/config.json" ]]; then
  hf download deepseek-ai/DeepSeek-R1-0528 --local-dir "$source_folder"
fi
python prepare/dequantize_fp8.py "$source_folder" model_bf16
