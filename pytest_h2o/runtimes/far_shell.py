"""What a shell on another host does around a program, and what it says of it."""

from __future__ import annotations

import re

# What it says, with the exit code, when the program has ended: a connection may end before.
ENDED = "h2o-launch-ended"
# What a shell elsewhere runs: directory and words follow. Where no line can be read, standard input
# is not held open for it. Else the program has a group of its own, which ends with the connection,
# or with the program itself.
WATCH = f"""ended() {{ printf '\\n{ENDED} %s\\n' "$1" >&2; exit "$1"; }}
cd "$1" || ended $?
shift
read -r line || {{ "$@" </dev/null; ended $?; }}
exec 3<&0 </dev/null
$(command -v setsid) "$@" 3<&- &
job=$!
(trap "" HUP; cat <&3
kill -TERM -$job || kill -TERM $job; sleep 2; kill -KILL -$job || kill -KILL $job) >/dev/null 2>&1 &
watch=$!
wait $job
status=$?
kill -KILL -$job $watch 2>/dev/null
ended $status"""
# On a line of its own, which is no part of what the program printed.
END_LINE = re.compile(rb"\r?\n" + ENDED.encode() + rb" [0-9]{1,3}\r?\n")


def without_end(said: bytes) -> bytes:
    """What was printed, without the line that says that the program ended."""
    return END_LINE.sub(b"", said)
