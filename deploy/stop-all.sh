#!/usr/bin/env bash
# Stops the servers of the hosts file, and waits until they have ended: tablets first, since they report to nameservers.
#
#   stop-all.sh [HOST:PORT...]      with endpoints: only these
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read_hosts
lock_hosts
choose "$@"
picked=("${chosen[@]}")
status=0
for role in tablet nameserver; do
    chosen=()
    for at in "${picked[@]}"; do
        [[ ${roles[at]} != "$role" ]] || chosen+=("$at")
    done
    # One that does not end keeps no other from being stopped.
    pids=()
    for at in "${chosen[@]}"; do
        server "$at" stop &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || status=1
    done
done
exit "$status"
