#!/bin/bash
# Stops the PostgreSQL server of this run and removes its data. Harmless when it does not run.
. "$(dirname "$0")/lib.sh"
dir=$RUN/postgres
[ -d "$dir" ] || exit 0
# Asked gently it would wait for its clients.
if running "$dir" postgres; then
    read -r pid _ <"$dir/postgres.pid"
    kill -QUIT "$pid" 2>/dev/null || true
fi
stop "$dir" postgres
if [ -s "$dir/data" ]; then rm -rf -- "$(cat "$dir/data")"; fi
# Unless it is the watchdog that became this script.
if [ "$(cut -d' ' -f1 "$dir/watchdog.pid" 2>/dev/null)" != $$ ]; then stop "$dir" watchdog; fi
rm -rf -- "$dir"
