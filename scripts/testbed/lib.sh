# What the scripts of the test bed share: folders, starting, stopping, waiting. Sourced, not run.
#
#   CONSIGN_TEST_CACHE      everything that is installed (default ~/.cache/consign-test)
#   CONSIGN_TEST_RUN        the running servers, one folder each (default $CONSIGN_TEST_CACHE/run)
#   CONSIGN_TEST_IDLE_SECS  a server that nobody uses for so long is stopped (default 120; 0 = never)
set -euo pipefail
umask 022

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${CONSIGN_TEST_CACHE:-${HOME:-/root}/.cache/consign-test}
RUN=${CONSIGN_TEST_RUN:-$CACHE/run}
START_SECS=120 # how long a server may take to start: the machine may be busy with a build
STOP_SECS=20   # after SIGTERM, before SIGKILL

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# libraries ROOT: the library folders of packages unpacked below ROOT, as a search path.
libraries() {
    local d out=
    for d in "$1"/usr/lib/*-linux-gnu "$1"/usr/lib/*-linux-gnu/ceph "$1"/lib/*-linux-gnu; do
        if [ -d "$d" ]; then out=$out${out:+:}$d; fi
    done
    echo "$out"
}

# free_port: a TCP port that nobody listens on, below the range of outgoing connections.
free_port() {
    local port _
    for _ in $(seq 100); do
        port=$((20000 + (RANDOM << 15 | RANDOM) % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    die "no free port between 20000 and 32000"
}

# began PID: when a process began, in ticks since boot; nothing when it has ended. With the number it names one process
# for good: numbers alone are used again, and a command line changes with `exec`.
began() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # After the name, which may contain anything: state, parent, … the 20th is the start.
    set -- ${stat##*) }
    [ "$1" = Z ] || echo "${20}"
}

# record DIR NAME PID: notes a process in DIR/NAME.pid as `PID BEGAN`.
record() { echo "$3 $(began "$3")" >"$1/$2.pid"; }

# start DIR NAME COMMAND...: in the background, in its own session; log in DIR/NAME.log, process in DIR/NAME.pid.
start() {
    local dir=$1 name=$2
    shift 2
    setsid "$@" >"$dir/$name.log" 2>&1 </dev/null &
    record "$dir" "$name" $!
}

# running DIR NAME: is the process that was noted still there?
running() {
    local pid began
    read -r pid began 2>/dev/null <"$1/$2.pid" && [ -n "$began" ] && [ "$(began "$pid")" = "$began" ]
}

# descendants PID: its children, their children …
descendants() {
    local child
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        echo "$child"
        descendants "$child"
    done
}

# stop DIR NAME...: ends the processes and all that they started, in the order given.
stop() {
    local dir=$1 name pid family end
    shift
    for name in "$@"; do
        if running "$dir" "$name"; then
            read -r pid _ <"$dir/$name.pid"
            family=$(descendants "$pid")
            kill "$pid" $family 2>/dev/null || true
            end=$((SECONDS + STOP_SECS))
            while running "$dir" "$name" && [ $SECONDS -lt $end ]; do sleep 0.05; done
            if running "$dir" "$name"; then kill -KILL "$pid" $family 2>/dev/null || true; fi
        fi
        rm -f "$dir/$name.pid"
    done
}

# wait_port DIR NAME PORT: until PORT answers; fails with the end of the log when the process is gone.
wait_port() {
    local end=$((SECONDS + START_SECS))
    until (exec 3<>"/dev/tcp/127.0.0.1/$3") 2>/dev/null && running "$1" "$2"; do
        if ! running "$1" "$2" || [ $SECONDS -ge $end ]; then
            tail -n 20 "$1/$2.log" >&2
            die "$2 does not answer on port $3 (log: $1/$2.log)"
        fi
        sleep 0.05
    done
}

# watch DIR NAME: stops the server when nobody has used it for a while, however its users ended.
watch() {
    : >>"$1/in-use"
    [ "${CONSIGN_TEST_IDLE_SECS:-120}" -gt 0 ] || return 0
    start "$1" watchdog bash "$HERE/watchdog.sh" "$1" "$2"
}

# undo_on_failure DIR NAME: when the script ends with an error, shows the logs and takes down what is already up.
undo_on_failure() {
    trap '[ $? = 0 ] || { tail -n 20 '"$(printf %q "$1")"'/*.log >&2 || true; "$HERE/'"$2"'-down.sh"; }' EXIT
}
