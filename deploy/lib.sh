# shellcheck shell=bash
# What the scripts here have in common: the settings, the hosts file, and how a server is reached.

deploy_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=env.sh
source "$deploy_dir/env.sh"

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Sets bin: the absolute path of the binary, once it is known to be one of Stela.
find_binary() {
    [[ -n $openmldb_bin_path ]] || die "openmldb_bin_path is empty: set it in $deploy_dir/env.sh to the stela binary"
    bin=$(command -v -- "$openmldb_bin_path") && [[ -f $bin ]] \
        || die "there is no program $openmldb_bin_path: set openmldb_bin_path in $deploy_dir/env.sh to the stela binary"
    bin=$(realpath -- "$bin")
    [[ $("$bin" --version 2>/dev/null) == stela\ * ]] \
        || die "$bin is not Stela: set openmldb_bin_path in $deploy_dir/env.sh to the stela binary"
}

# Reads the hosts file into roles, endpoints and dirs.
read_hosts() {
    roles=() endpoints=() dirs=()
    [[ -r $stela_hosts ]] || die "cannot read the hosts file $stela_hosts: write one, or set stela_hosts in $deploy_dir/env.sh"
    local line section='' number=0 endpoint dir rest at
    while read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line%%#*}
        wrong() { die "$stela_hosts, line $number: $*"; }
        read -r endpoint dir rest <<<"$line" || true
        case $endpoint in
            '') continue ;;
            '[nameserver]' | '[tablet]') section=${endpoint:1:-1} && continue ;;
            '['*) wrong "there is no section $endpoint: write [nameserver] or [tablet]" ;;
        esac
        [[ -n $section ]] || wrong "it stands in no section: write [nameserver] or [tablet] above it"
        # Servers are known by addresses: a name may mean another one elsewhere.
        [[ $endpoint =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}:([1-9][0-9]{0,4})$ ]] || wrong "$endpoint is not ip:port: write ip:port directory"
        ((BASH_REMATCH[2] < 65536)) || wrong "$endpoint has no port that exists: it is to be below 65536"
        [[ $dir == /* && -z $rest ]] || wrong "behind $endpoint one directory is to be given, from the root on and without blanks"
        dir=${dir%/}
        for at in "${!roles[@]}"; do
            [[ ${endpoints[at]} != "$endpoint" ]] || wrong "$endpoint is there twice: each server has a port of its own"
            [[ ${dirs[at]} != "$dir" || ${endpoints[at]%:*} != "${endpoint%:*}" ]] \
                || wrong "$dir is that of ${endpoints[at]}: each server has a directory of its own"
        done
        roles+=("$section") endpoints+=("$endpoint") dirs+=("$dir")
    done <"$stela_hosts"
    [[ " ${roles[*]} " == *' nameserver '* ]] || die "$stela_hosts names no nameserver: write them below [nameserver]"
    [[ " ${roles[*]} " == *' tablet '* ]] || die "$stela_hosts names no tablet: write them below [tablet]"
}

# The nameservers of the hosts file, as flags take them.
nameservers_of_hosts() {
    local at list=''
    for at in "${!roles[@]}"; do
        [[ ${roles[at]} != nameserver ]] || list+=,${endpoints[at]}
    done
    echo "${list#,}"
}

# Sets nameservers: those of zk_cluster, else those of the hosts file.
find_nameservers() {
    nameservers=$zk_cluster
    [[ -n $nameservers ]] || { read_hosts && nameservers=$(nameservers_of_hosts); }
}

# Sets chosen: the positions of the given endpoints, or of all servers.
choose() {
    chosen=()
    local wanted at
    (($#)) || chosen=("${!roles[@]}")
    for wanted; do
        for at in "${!roles[@]}"; do
            [[ ${endpoints[at]} != "$wanted" ]] || { chosen+=("$at") && continue 2; }
        done
        die "$stela_hosts has no server $wanted: it has ${endpoints[*]}"
    done
}

# Only one of these scripts at a time starts and stops what is in a hosts file. Servers do not inherit descriptor 9.
lock_hosts() {
    exec 9<"$stela_hosts"
    flock -w 3 9 || die "another start-all.sh or stop-all.sh is at work on $stela_hosts: wait until it has ended"
}

is_here() {
    [[ $1 == 127.* || " $(hostname -I 2>/dev/null) " == *" $1 "* ]]
}

# Sets command: what runs server.sh with an action and its arguments on the host of a server, from standard input there.
reach() {
    local at=$1 action=$2 host
    shift 2
    host=${endpoints[at]%:*}
    local words=("$action" "${roles[at]}" "${endpoints[at]}" "${dirs[at]}" "$@")
    command=(bash -s -- "${words[@]}")
    # The words are quoted here, to arrive there as they are.
    is_here "$host" || command=(ssh -o BatchMode=yes -o ConnectTimeout=10 "$host" "bash -s -- $(printf '%q ' "${words[@]}")")
}

# server AT ACTION ARG...: does it.
server() {
    local command status=0
    reach "$@"
    "${command[@]}" <"$deploy_dir/server.sh" 9<&- || status=$?
    ((status != 255)) || echo "${0##*/}: see that 'ssh ${endpoints[$1]%:*} true' works without a question" >&2
    return "$status"
}

# Waits until the chosen servers are ready; fails as soon as one has failed.
await_ready() {
    local command at pids=()
    for at in "${chosen[@]}"; do
        reach "$at" ready
        "${command[@]}" <"$deploy_dir/server.sh" 9<&- &
        pids+=($!)
    done
    for at in "${pids[@]}"; do
        # The others may wait in vain for the one that is gone: what it said is the cause.
        wait -n || { kill "${pids[@]}" 2>/dev/null || true; return 1; }
    done
}
