#!/bin/bash
# up.sh [--keep]: brings the cluster up and waits until its node and its DNS are ready. It starts from
# nothing; with --keep from what `down.sh --keep` left, as after a reboot. Prints the path of the kubeconfig.
. "$(dirname "$0")/env.sh"
begin=$(date +%s%N)
lap() { awk -v ns=$(($(date +%s%N) - begin)) -v what="$1" 'BEGIN { printf "%-28s %6.1f s\n", what, ns / 1e9 }' >&2; }
ready() { # what, command...
  local end=$((SECONDS + 120)) what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    is_up || fail "the node died; see $RUN/log"
    ((SECONDS < end)) || fail "$what: not ready within two minutes; see $RUN/log"
    sleep 0.2
  done
  lap "$what"
}
is_up && fail "up already, with KUBECONFIG=$KUBECONFIG"
[[ $EUID == 0 ]] || fail "namespaces and mounts need root"
[[ -x $BIN/kube-apiserver && -d $DEB/usr/lib/cni ]] || fail "parts are missing in $PARTS; type: cargo xtask provision"
[[ -d /sys/fs/cgroup/memory ]] || fail "this node is made for cgroup v1, which this machine does not mount"
"$HERE/down.sh" "$@" 2>/dev/null # what a run that died may have left
mkdir -p "$RUN"/{log,pid,held}
rm -rf "$RUN"/{pid,held,log}/* "$RUN/state" "$RUN/containerd.sock" # gone after a reboot, too
"$HERE/pki.sh"
"$HERE/config.sh"

trap '[[ ${complete-} ]] || "$HERE/down.sh" --keep' EXIT # half a cluster is none; its logs stay
setsid unshare --mount --net --pid --cgroup --uts --ipc --fork --kill-child --mount-proc --propagation private \
  bash "$HERE/node-init.sh" >"$RUN/log/node.log" 2>&1 </dev/null &
holder=$!
for _ in $(seq 100); do
  init=$(cat "/proc/$holder/task/$holder/children" 2>/dev/null) && [[ -n $init ]] && break
  sleep 0.05
done
[[ -n ${init// /} ]] || fail "the node did not start; see $RUN/log"
echo "$holder $(started "$holder") ${init// /}" >"$RUN/holder"
# The network of pid 1 is new only once unshare has made it.
until [[ $(readlink "/proc/${init// /}/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do sleep 0.05; done
ip link add "$LINK" type veth peer name eth0 netns "${init// /}"
ip addr add "$MACHINE/24" dev "$LINK"
ip link set "$LINK" up
ip route add "$SERVICES" via "$IP"
ip route add "$PODS" via "$IP"

ready "API server" "$BIN/kubectl" get --raw /readyz
sed "s/@DNS@/$DNS/; s/@MACHINE@/$MACHINE/" "$HERE/manifests.yaml" | "$BIN/kubectl" apply -f - >/dev/null
node_ready() { "$BIN/kubectl" wait --for=condition=Ready "node/$NODE" --timeout=1s; }
policies_ready() { "$BIN/kubectl" --namespace kube-system rollout status daemonset/kube-network-policies --timeout=1s; }
dns_ready() { "$BIN/kubectl" --namespace kube-system rollout status deployment/coredns --timeout=1s; }
ready "node" node_ready
# The first bare Pod would wait for it.
ready "default ServiceAccount" "$BIN/kubectl" get serviceaccount default
ready "DNS" dns_ready
ready "NetworkPolicies" policies_ready
complete=yes
echo "$KUBECONFIG"
