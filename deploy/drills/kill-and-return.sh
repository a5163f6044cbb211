#!/usr/bin/env bash
# kill -9 of one tablet, then of another, then of the last, under a writer. After one and after two of three, reads and
# writes are back by themselves within 10 s; with all three down a read is an error and never an empty result; when all are
# started again the table becomes whole without a command.
#
#   kill-and-return.sh [ROUNDS]
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# is_error COMMAND: a read is refused, in words, and shows no result.
is_error() {
    local said
    ! said=$(patience=3000 ns "$1") || fail "with all tablets down '$1' succeeded: $said"
    grep -q 'error msg' <<<"$said" || fail "with all tablets down '$1' did not say that it failed: $said"
    ! grep -Eq 'value :| key +ts' <<<"$said" || fail "with all tablets down '$1' showed a result: $said"
}

set_up
start_writer
one=0 two=0 back=0
for ((round = 1; round <= rounds; round++)); do
    # Another one first in each round.
    order=("${tablets[@]:round % 3}" "${tablets[@]:0:round % 3}")
    began=$(now)
    kill_server "${order[0]}"
    back_after "$began" "kill -9 of ${order[0]}"
    await_written
    ((took <= one)) || one=$took
    began=$(now)
    kill_server "${order[1]}"
    back_after "$began" "kill -9 of ${order[1]}, the second of three"
    await_written
    ((took <= two)) || two=$took
    kill_server "${order[2]}"
    is_error 'scan t probe1 0 0'
    is_error 'get t probe1 0'
    say 'with all three down a read is an error'
    began=$(now)
    start "${tablets[@]}"
    await 60 'a whole table without a command' is_whole
    back_after "$began" 'the start of all three'
    await_written
    ((took <= back)) || back=$took
done
check
pass "$rounds rounds, reads and writes back after at most $one ms (one of three killed), $two ms (two), $back ms (all started again), $figures"
