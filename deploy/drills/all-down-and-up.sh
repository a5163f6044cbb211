#!/usr/bin/env bash
# kill -9 of all nameservers and tablets at the same moment, under a writer; then start-all.sh, which ends with recoverdata.
# Nothing may be lost.
#
#   all-down-and-up.sh [ROUNDS]
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up
start_writer
longest=0
for ((round = 1; round <= rounds; round++)); do
    await_written
    kill_server "${endpoints[@]}"
    say 'nothing runs'
    began=$(now)
    start
    is_whole || fail 'start-all.sh has ended, and not every replica is back'
    back_after "$began" 'the start of everything'
    ((took <= longest)) || longest=$took
    await_written
done
check
pass "$rounds times everything, start-all.sh until all was whole and answered at most $longest ms, $figures"
