#!/bin/bash
# Stops the stand-in for Google Cloud Storage of this run and removes its data. Harmless when it does not run.
. "$(dirname "$0")/lib.sh"
dir=$RUN/gcs
[ -d "$dir" ] || exit 0
stop "$dir" gate
# Unless it is the watchdog that became this script.
if [ "$(cut -d' ' -f1 "$dir/watchdog.pid" 2>/dev/null)" != $$ ]; then stop "$dir" watchdog; fi
rm -rf -- "$dir"
