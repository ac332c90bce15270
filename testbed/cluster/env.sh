# Sourced by every script here: where things are, what the node is called, its addresses.
# OBOL_CLUSTER is a digit: clusters of different digits run side by side and know nothing of each other.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
N=${OBOL_CLUSTER:-0}
[[ $N =~ ^[0-9]$ ]] || { echo "OBOL_CLUSTER is '$N'; give one digit" >&2; exit 2; }
PARTS=$(realpath -ms "${OBOL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/obol}/cluster") # kubelet refuses `//`
RUN=$PARTS/run/$N
PKI=$RUN/pki
BIN=$PARTS/bin
DEB=$PARTS/debian

NODE=obol-$N               # node, cgroup of its pods
LINK=obol$N                # the machine's end of the cable
MACHINE=10.200.$N.1        # the machine, as pods see it
IP=10.200.$N.2             # the node
SERVICES=10.$((96 + N)).0.0/16
API=10.$((96 + N)).0.1     # Service `kubernetes`
DNS=10.$((96 + N)).0.10    # Service `kube-dns`
PODS=10.$((244 - N)).0.0/16
KUBECONFIG=$PKI/admin.kubeconfig
export KUBECONFIG

fail() { echo "cluster: $*" >&2; exit 1; }

# Start time of a process in clock ticks: with it a pid names one process for ever.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# Whether the cluster is up; sets HOLDER (outside) and INIT (pid 1 inside), both as the machine counts.
is_up() {
  local start
  read -r HOLDER start INIT 2>/dev/null <"$RUN/holder" || return 1
  [[ $(started "$HOLDER") == "$start" && -d /proc/$INIT ]]
}
must_be_up() { is_up || fail "not up; type: cargo xtask cluster up"; }

# Pid of a component on the machine; nothing while it is down.
pid_of() {
  local inner pid
  inner=$(cat "$RUN/pid/$1" 2>/dev/null) || return 0
  for pid in $(grep -sH '^NSpid:' /proc/[0-9]*/status | awk -v inner="$inner" '$NF == inner { print $2 }'); do
    [[ $(readlink "/proc/$pid/ns/pid") != "$(readlink "/proc/$INIT/ns/pid")" ]] || echo "$pid"
  done
}
