#!/bin/sh
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs inside the container. From before.json to after.json, killed at the n-th system call of a kind, for each n until
# there is no such call. Each time the daemons must know everybody in steady.txt, and the next run must get there.
# Of the many writes, which lie between those calls, it is every fourth. Prints how many times it was killed.
set -u
cd /root || exit 1
change() { python3 change.py "$1" >change.out 2>&1; }
answers() {
  # shellcheck disable=SC2046 # one word per address
  codes=$(python3 mail.py rcpt $(cat steady.txt)) || return 1
  [ -z "$(echo "$codes" | tr -d '[], \n' | sed 's/250//g')" ] || { echo "$1: $codes"; return 1; }
  # shellcheck disable=SC2013
  for user in $(cat users.txt); do
    doveadm user "$user" >/dev/null 2>&1 || { echo "$1: $user is unknown to Dovecot"; return 1; }
  done
}
killed=0
for call in rename fsync write; do
  n=0
  step=1
  [ $call = write ] && step=4
  while :; do
    n=$((n + step))
    change before.json || { cat change.out; exit 1; }
    strace -f -qq -o strace.out -e "trace=$call" -e "inject=$call:signal=KILL:when=$n" \
      python3 change.py after.json >killed.out 2>&1
    answers "killed at $call $n" || exit 1
    grep -q 'killed by SIGKILL' strace.out || break
    killed=$((killed + 1))
    change after.json || { cat change.out; exit 1; }
    answers "after $call $n" || exit 1
    change after.json
    [ "$(cat change.out)" = False ] || { echo "after $call $n there was more to do"; exit 1; }
    [ -z "$(find /etc/postmeister/directory -name '*build*' -o -name '*new*')" ] || exit 1
  done
done
echo "$killed"
