#!/bin/bash
# Starts a PostgreSQL server on loopback; what a client needs is then in DIR/state.json.
#
#   POSTGRES_PORT     its port; a free one is chosen when not given
#   POSTGRES_BIN      the folder of the programs of another version than the machine's own, which run as they are
#   POSTGRES_DURABLE  when set, a crash loses nothing that was acknowledged: for tests that crash it
#
# It refuses to run as root: started by root, it runs as `postgres` or `nobody`.
. "$(dirname "$0")/lib.sh"
dir=$RUN/postgres
"$HERE/postgres-down.sh"
mkdir -p "$dir"
undo_on_failure "$dir" postgres
port=${POSTGRES_PORT:-$(free_port)}
newest() { ls -d "$1"/usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }
bin=$(newest '')
[ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -z "${POSTGRES_UNPACKED:-}" ] || bin=$(newest "$CACHE/deb-postgres/root")
if [ -n "${POSTGRES_BIN:-}" ]; then bin=$POSTGRES_BIN; fi
[ -x "$bin/postgres" ] || die "PostgreSQL is not installed: run scripts/testbed/setup.sh"
case $bin in "$CACHE"/*) libraries=$(libraries "$CACHE/deb-postgres/root") ;; *) libraries= ;; esac

# Not below the cache: that may be in a home folder which the server's user cannot enter. What need not survive is in memory
# where there is plenty: a database is 300 files, a run makes hundreds of them, and some disks take minutes to remove that.
ROOM_MIB=8192
free_mib() { awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo; }
shared_mib() { df -m --output=avail /dev/shm 2>/dev/null | tail -n 1; }
place=/tmp
if [ -z "${POSTGRES_DURABLE:-}" ] && [ -w /dev/shm ] && [ "$(free_mib)" -ge $ROOM_MIB ] && [ "$(shared_mib)" -ge $ROOM_MIB ]; then
    place=/dev/shm
fi
data=$(mktemp -d $place/consign-postgres.XXXXXX)
echo "$data" >"$dir/data"
as=()
if [ "$(id -u)" = 0 ]; then
    user=$(getent passwd postgres >/dev/null && echo postgres || echo nobody)
    chown "$user" "$data"
    as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
    # Programs below root's home folder can be read by nobody else, but with this.
    case $bin in "$CACHE"/*) as+=(--inh-caps=+dac_read_search --ambient-caps=+dac_read_search) ;; esac
fi
as+=(env "HOME=$data" "PGDATA=$data/data" "LD_LIBRARY_PATH=$libraries")
cd /tmp
"${as[@]}" "$bin/initdb" -U consign --auth=trust --no-sync -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log" 2>&1
cat >>"$data/data/postgresql.conf" <<CONFIG
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
max_connections = 300
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = 'warning'
CONFIG
if [ -z "${POSTGRES_DURABLE:-}" ]; then
    printf 'fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n' >>"$data/data/postgresql.conf"
fi
# How it is started again after a crash that a test brought about.
{
    echo '#!/bin/bash'
    printf 'exec %s %s >>%q 2>&1 </dev/null\n' "$(printf '%q ' "${as[@]}")" "$(printf %q "$bin/postgres")" "$dir/postgres.log"
} >"$dir/serve"
chmod 755 "$dir/serve"
start "$dir" postgres "$dir/serve"
wait_port "$dir" postgres "$port"
ready() { LD_LIBRARY_PATH=$libraries "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U consign -d postgres; }
for _ in $(seq 100); do if ready; then break; fi; sleep 0.1; done
ready || die "the server does not get ready (log: $dir/postgres.log)"
cat >"$dir/state.tmp" <<STATE
{
  "port": $port, "user": "consign", "bin": "$bin", "libraries": "$libraries", "data": "$data/data",
  "version": "$(LD_LIBRARY_PATH=$libraries "$bin/postgres" --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')"
}
STATE
watch "$dir" postgres
mv "$dir/state.tmp" "$dir/state.json"
echo "postgres://consign@127.0.0.1:$port/postgres"
