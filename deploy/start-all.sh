#!/usr/bin/env bash
# Starts the servers of the hosts file that do not run yet, waits until each is ready, and lets the cluster recover:
#
#   start-all.sh [HOST:PORT...]      with endpoints: only these, and no recovery
#
# The first start founds the cluster. It counts as the first as long as no tablet has anything on its disk: a tablet starts
# only when the nameservers are one group, so an interrupted first start can be repeated.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

find_binary
read_hosts
nameservers=$(nameservers_of_hosts)
[[ -z $zk_cluster || $zk_cluster == "$nameservers" ]] \
    || die "zk_cluster is $zk_cluster, but $stela_hosts has the nameservers $nameservers: correct one of them, or leave zk_cluster empty"
lock_hosts

# Has any server of a role something on its disk? Sets used to used or empty; who cannot be asked is no empty one.
look_at() {
    local at word
    used=empty
    for at in "${!roles[@]}"; do
        [[ ${roles[at]} == "$1" ]] || continue
        word=$(server "$at" used) || die "cannot look at the directory of ${endpoints[at]}, see above"
        [[ $word == empty ]] || used=used
    done
}

# start ROLE FLAG...: those of a role among the chosen, until they are ready.
start() {
    local role=$1 at flags=() of_role=()
    shift
    for at in "${picked[@]}"; do
        [[ ${roles[at]} != "$role" ]] || of_role+=("$at")
    done
    chosen=("${of_role[@]}")
    ((${#chosen[@]})) || return 0
    # Flags go along as words, so that other hosts need no file; those of this script come last and win.
    if [[ -r $stela_conf/$role.flags ]]; then
        mapfile -t flags < <(grep -E '^--?[A-Za-z]' "$stela_conf/$role.flags")
    fi
    for at in "${chosen[@]}"; do
        server "$at" launch "$bin" "${flags[@]}" "--nameservers=$nameservers" "--zk_root_path=$zk_root_path" "$@" \
            || die "${endpoints[at]} was not started"
    done
    await_ready || die "not everything runs: correct what is said above and start again; what runs goes on"
}

choose "$@"
picked=("${chosen[@]}")
founding=()
look_at tablet
if [[ $used == empty ]]; then
    founding=(--bootstrap)
else
    look_at nameserver
    [[ $used != empty ]] || die "the nameservers' directories are all empty, but tablets have data: mount the nameservers' disks; a new cluster could not read it"
fi
start nameserver "${founding[@]}"
start tablet
exec 9<&-
(($#)) || exec "$deploy_dir/recoverdata.sh"
