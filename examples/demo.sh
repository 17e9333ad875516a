#!/bin/sh
# Complete offline example: train small networks, tell what a file is with nothing prepared, register the networks, then
# query equivalents, classes and smaller models.
# Usage: demo.sh FOLDER, with archreg and its python on the PATH (as in `make demo`).
set -eu
folder=${1:?usage: demo.sh FOLDER}
here=$(dirname "$0")

say() {
    printf '\n$ %s\n' "$*"
    "$@"
}

mkdir -p "$folder"
rm -f "$folder"/demo.db "$folder"/demo.db-wal "$folder"/demo.db-shm # every run starts from an empty registry
say python "$here/digits.py" "$folder"
say archreg identify "$folder/cnn24-s0.safetensors" # just trained, and in no catalogue
say archreg identify torchvision:resnet18.random # an initialisation, made here
say archreg ingest --manifest "$folder/manifest.jsonl" --db "$folder/demo.db"
say archreg nearest cnn24-s0 -k 5 --db "$folder/demo.db"
say archreg classes --db "$folder/demo.db"
say archreg compress resnet32-s0 --db "$folder/demo.db" # the largest
