#!/bin/bash
# Stops the Ceph gateway of this run and removes its data. Harmless when it does not run.
. "$(dirname "$0")/lib.sh"
dir=$RUN/rgw
[ -d "$dir" ] || exit 0
stop "$dir" prepare rgw osd mon
watchdog=$(cat "$dir/watchdog.pid" 2>/dev/null || true)
if [ "$watchdog" != $$ ]; then stop "$dir" watchdog; fi
rm -rf -- "$dir"
