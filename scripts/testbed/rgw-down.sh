#!/bin/bash
# Stops the Ceph gateway of this run and removes its data. Harmless when it does not run.
. "$(dirname "$0")/lib.sh"
dir=$RUN/rgw
[ -d "$dir" ] || exit 0
stop "$dir" prepare rgw osd mon
# Unless it is the watchdog that became this script.
if [ "$(cut -d' ' -f1 "$dir/watchdog.pid" 2>/dev/null)" != $$ ]; then stop "$dir" watchdog; fi
rm -rf -- "$dir"
