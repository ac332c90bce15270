#!/bin/bash
# down.sh [--keep]: ends the cluster and removes all that it made; with --keep its state (etcd, images,
# volumes, keys) stays for `up.sh --keep`. Works as well on what a run that died has left.
. "$(dirname "$0")/env.sh"
if is_up; then
  kill -KILL "$INIT" # every process of the node dies with its pid 1
  for _ in $(seq 400); do
    kill -0 "$HOLDER" 2>/dev/null || break
    sleep 0.05
  done
else
  echo "not up" >&2
fi
ip link delete "$LINK" 2>/dev/null || true
# Removable once the kernel has let go of the last process in them.
for _ in $(seq 50); do
  find /sys/fs/cgroup -mindepth 2 -depth -type d -path "*/$NODE*" -exec rmdir {} + 2>/dev/null || true
  [[ $(find /sys/fs/cgroup -mindepth 2 -type d -name "$NODE" -print -quit) ]] || break
  sleep 0.1
done
rm -f "$RUN/holder"
[[ ${1-} == --keep ]] || rm -rf --one-file-system "$RUN"
