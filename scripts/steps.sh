#!/usr/bin/env bash
# Runs the commands on standard input, one on each line, and prints how long each took. Stops at the first
# that fails; with -k goes on, and fails at the end.
set -uo pipefail
keep_going=false
[ "${1:-}" = -k ] && keep_going=true

times=()
failed=0
report() {
    echo
    echo "  minutes  step"
    printf '%s\n' "${times[@]}"
}
while IFS= read -r -u 3 step; do
    [ -n "$step" ] || continue
    echo "== $step"
    begun=$SECONDS
    status=ok
    bash -euo pipefail -c "$step" || status=FAILED
    times+=("$(awk -v s=$((SECONDS - begun)) 'BEGIN { printf "%9.1f", s / 60 }')  $step$([ $status = ok ] || echo "  $status")")
    [ $status = ok ] && continue
    failed=1
    $keep_going || break
done 3<&0
times+=("$(awk -v s=$SECONDS 'BEGIN { printf "%9.1f", s / 60 }')  in all")
report
exit $failed
