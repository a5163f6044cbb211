# shellcheck shell=bash
# What the drills have in common: a cluster of three nameservers and three tablets on 127.0.0.1 with a table of three
# replicas, a writer that notes what was acknowledged, a check that reads it all back, and the verdict.
#
# The last line of a drill begins with PASS (status 0), FAIL (1) or UNKNOWN (2: too little was written to tell).
#   openmldb_bin_path   the binary that is tried; without it target/debug/stela
#   drill_untimed=1     show how long things took, and do not judge it: for a machine that is busy with something else

drill=$(basename "$0" .sh)
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=${1:-2}
[[ $rounds =~ ^[1-9][0-9]{0,3}$ ]] || { echo "$drill: how many rounds? a number from 1 on" >&2; exit 1; }

export openmldb_bin_path=${openmldb_bin_path:-$deploy/../target/debug/stela}
export zk_cluster='' zk_root_path=/drill stela_conf=/nonexistent stela_hosts
# Checks the binary, and sets bin.
# shellcheck source=../lib.sh
source "$deploy/lib.sh"
find_binary

partitions=4
tablets=()
# Reads and writes are back within so many ms after a death, or the drill fails.
limit=10000
# Rows that a drill must have had acknowledged before it may judge.
enough=200
# Rows that the writer sends together, and how many such batches at most: more than a minute's in each round.
together=20 most=$((rounds * 600))
verdict=''
writer_pid=''
work=$(mktemp -d "${TMPDIR:-/tmp}/stela-drill-XXXXXX")
stela_hosts=$work/hosts
trap tidy_up EXIT
trap 'exit 1' INT TERM

say() { echo "$(date +%T) $*"; }
now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
since() { echo $(($(now) - $1)); }

pass() { verdict=PASS && echo "PASS $drill: $*" && exit 0; }
fail() { verdict=FAIL && echo "FAIL $drill: $*" && exit 1; }
unknown() { verdict=UNKNOWN && echo "UNKNOWN $drill: $*" && exit 2; }

# Ends what this drill has started, each by its own id, and removes the directory unless it tells why the drill failed.
tidy_up() {
    local at
    [[ -z $writer_pid ]] || kill "$writer_pid" 2>/dev/null || true
    for at in "${!endpoints[@]}"; do kill_server "${endpoints[at]}" || true; done
    case $verdict in
        PASS | UNKNOWN) rm -rf "$work" ;;
        FAIL) echo "the servers' logs are in $work" >&2 ;;
        *) echo "the servers' logs are in $work" >&2 && echo "FAIL $drill: it ended before its end, see above" && exit 1 ;;
    esac
}

# await SECONDS WHAT COMMAND...: until the command succeeds, or the drill has failed.
await() {
    local deadline=$(($(now) + $1 * 1000)) what=$2
    shift 2
    until "$@"; do
        (($(now) < deadline)) || fail "$what: not within the time for it"
        sleep 0.1
    done
}

# in_time MS WHAT: within the limit?
in_time() {
    (($1 <= limit)) || [[ -n ${drill_untimed-} ]] || fail "$2 took $1 ms, more than $limit"
}

# --- the cluster -------------------------------------------------------------------------------------------------------

# Six free ports in a row, below those that the system gives to clients.
free_ports() {
    local base port try
    for try in {1..50}; do
        base=$((12000 + RANDOM % 18000))
        for port in {0..5}; do
            ! (exec 3<>"/dev/tcp/127.0.0.1/$((base + port))") 2>/dev/null || continue 2
        done
        echo "$base"
        return
    done
    echo "$drill: no six free ports in a row on 127.0.0.1 in $try tries" >&2
    return 1
}

set_up() {
    local base n
    base=$(free_ports)
    {
        echo '[nameserver]'
        for n in 0 1 2; do echo "127.0.0.1:$((base + n)) $work/nameserver$n"; done
        echo '[tablet]'
        for n in 3 4 5; do echo "127.0.0.1:$((base + n)) $work/tablet$n"; done
    } >"$stela_hosts"
    read_hosts
    nameservers=$(nameservers_of_hosts)
    tablets=("${endpoints[@]:3}")
    start
    ns 'createdb drill' >/dev/null
    ns "create t 0 $partitions 3" >/dev/null
    await 30 'a whole table' is_whole
    say "three nameservers and three tablets run, from $work"
}

# Starts what does not run, in the words of an operator.
start() { "$deploy/start-all.sh" "$@" >>"$work/scripts.log" 2>&1 || fail "start-all.sh $*: $(tail -n 1 "$work/scripts.log")"; }
stop() { "$deploy/stop-all.sh" "$@" >>"$work/scripts.log" 2>&1 || fail "stop-all.sh $*: $(tail -n 1 "$work/scripts.log")"; }
ops() { "$bin" ops "$@" --wait --nameservers "$nameservers" --cluster "$zk_root_path" >>"$work/scripts.log" 2>&1 \
    || fail "stela ops $*: $(tail -n 1 "$work/scripts.log")"; }

# kill -9 of servers that this drill has started: their pid files are in its own directory.
kill_server() {
    local wanted at pid pids=()
    for wanted; do
        for at in "${!endpoints[@]}"; do
            [[ ${endpoints[at]} == "$wanted" ]] || continue
            pid=$(server "$at" state)
            [[ -z $pid ]] || pids+=("$pid")
        done
    done
    ((${#pids[@]} == 0)) || kill -9 "${pids[@]}"
}

# One command of ns_client in the database of the drill; fails as the command does.
ns() {
    "$bin" --role=ns_client --zk_cluster="$nameservers" --zk_root_path="$zk_root_path" --interactive=false --strict-exit \
        --database=drill --request_timeout_ms="${patience:-20000}" --cmd="$*" 2>>"$work/client.log"
}

# One command of the client of a tablet.
tablet() {
    local endpoint=$1
    shift
    "$bin" --role=client --endpoint="$endpoint" --interactive=false --strict-exit --cmd="$*" 2>>"$work/client.log"
}

# The rows of showtable: name tid pid endpoint role is_alive offset ...
rows() { ns showtable | awk '$1 == "t"'; }

# Has every partition all three replicas, and one leader, all alive?
is_whole() {
    rows | awk -v want="$partitions" '
        $6 == "yes" { alive++ } $6 == "yes" && $5 == "leader" { leaders++ }
        END { exit !(NR == 3 * want && alive == 3 * want && leaders == want) }'
}

# How many partitions a tablet leads.
leads() { rows | awk -v at="$1" '$4 == at && $5 == "leader" && $6 == "yes"' | wc -l; }

# --- what is written and read ------------------------------------------------------------------------------------------

# put FILE: the rows of a file, all or nothing is said to be stored.
put() {
    "$bin" import --nameservers "$nameservers" --cluster "$zk_root_path" --db drill --table t --no-header \
        --columns key,time,value -q "$1" >>"$work/writer.log" 2>&1
}

# read_back FILE: its rows, one by one, from the leaders; prints how many are not answered as they were written.
read_back() {
    local total same
    total=$(wc -l <"$1")
    same=$({ echo 'use drill' && awk -F, '{ print "get t " $1 " " $2 }' "$1"; } \
        | "$bin" --role=ns_client --zk_cluster="$nameservers" --zk_root_path="$zk_root_path" \
            --request_timeout_ms="${patience:-20000}" 2>>"$work/client.log" \
        | grep -Ev '^(Welcome|ns leader|Use database)' \
        | paste -d '|' <(awk -F, '{ print "value :" $3 }' "$1") - | awk -F '|' '$1 != "" && $1 == $2' | wc -l)
    echo $((total - same))
}

# Writes until it is told to stop, and notes which batches were acknowledged, and when.
writer() {
    local n=0 row
    set +e
    while [[ ! -e $work/enough ]] && ((n < most)); do
        for ((row = n * together; row < (n + 1) * together; row++)); do
            echo "key$row,$((1700000000000 + row)),value$row"
        done >"$work/batch"
        if put "$work/batch"; then
            cat "$work/batch" >>"$work/acknowledged"
            now >>"$work/moments"
        else
            echo "$n" >>"$work/refused"
        fi
        ((n++))
        sleep 0.1
    done
}

start_writer() {
    : >"$work/acknowledged" && : >"$work/moments" && : >"$work/refused"
    writer &
    writer_pid=$!
    await 20 'the first rows' has_written "$together"
}

has_written() { (($(wc -l <"$work/acknowledged") >= $1)) || { is_writing && false; }; }

# Waits until the writer has had an answer to something that it sent from now on.
await_written() {
    await 60 'a row that is acknowledged' has_written $(($(wc -l <"$work/acknowledged") + 2 * together))
}

# The writer has come to its bound, which is no verdict.
is_writing() { kill -0 "$writer_pid" 2>/dev/null || unknown 'the writer had written all that it may before the drill was over'; }

# Stops the writer, reads everything back, and leaves the figures in figures.
check() {
    local deadline=$(($(now) + 20000)) lost
    while (($(now) < deadline && $(wc -l <"$work/acknowledged") < enough)); do sleep 0.1; done
    : >"$work/enough"
    deadline=$(($(now) + 60000))
    while kill -0 "$writer_pid" 2>/dev/null; do
        (($(now) < deadline)) || fail 'the writer hangs'
        sleep 0.1
    done
    writer_pid=''
    await 60 'a whole table' is_whole
    written=$(wc -l <"$work/acknowledged")
    lost=$(read_back "$work/acknowledged")
    pause=$(awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { print most + 0 }' "$work/moments")
    refused=$(wc -l <"$work/refused")
    figures="$written rows acknowledged, $lost lost, longest pause of the writer $pause ms"
    ! grep -l 'panicked at' "$work"/*.log || fail "a server panicked; $figures"
    ((lost == 0)) || fail "$figures"
    ((written >= enough)) || unknown "too little was written: $figures"
}

# The rows that are written and read to see whether all partitions answer.
probe() {
    local row
    for row in {1..40}; do echo "probe$row,$((1600000000000 + row)),$1"; done >"$work/probe"
}

# back_after SINCE WHAT: waits until every partition takes writes and answers reads; sets took.
back_after() {
    probe "after-$1"
    await 60 "writes after $2" put "$work/probe"
    [[ $(read_back "$work/probe") == 0 ]] || await 60 "reads after $2" reads_probe
    took=$(since "$1")
    in_time "$took" "reads and writes after $2"
    say "reads and writes are back $took ms after $2"
}

reads_probe() { [[ $(read_back "$work/probe") == 0 ]]; }
