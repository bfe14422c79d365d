#!/bin/bash
# Stops a server that no test uses any more. usage: watchdog.sh DIR NAME (started by NAME-up.sh)
#
# A test process holds a shared lock on DIR/in-use as long as it lives and touches the file when it takes it.
# Whoever starts or stops a server holds DIR.lock, so a start and this stop cannot meet.
. "$(dirname "$0")/lib.sh"
dir=$1 name=$2 idle_secs=${CONSIGN_TEST_IDLE_SECS:-120}

idle() {
    flock --exclusive --nonblock "$dir/in-use" true && [ $(($(date +%s) - $(stat -c %Y "$dir/in-use"))) -ge "$idle_secs" ]
}

while sleep 5 && [ -e "$dir/in-use" ]; do
    if idle; then
        exec 9>>"$dir.lock"
        flock --exclusive 9
        if idle; then
            CONSIGN_TEST_RUN=$(dirname "$dir") exec "$HERE/$name-down.sh"
        fi
        exec 9>&-
    fi
done
