#!/bin/bash
# Pid 1 of the node, in namespaces of its own: what it mounts, starts and routes ends with it.
. "$(dirname "$0")/env.sh"
set +e # a service manager goes on
export PATH=$BIN:$DEB/usr/bin:$DEB/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LD_LIBRARY_PATH=$DEB/usr/lib/$(uname -m)-linux-gnu XTABLES_LIBDIR=$DEB/usr/lib/$(uname -m)-linux-gnu/xtables

mount --make-rshared / # containerd and kubelet want it so; from the machine it is private already
# What kubelet insists on setting for the whole machine: it finds its values here, and sets nothing.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=$RUN/config/${setting//\//.}
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done
# A /sys of this network, with the cgroup hierarchies as seen from this cgroup namespace.
cp /proc/cgroups "$RUN/config/cgroups"
umount -R /sys
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
for hierarchy in cpu cpuacct cpuset memory devices freezer blkio pids name=systemd; do
  folder=/sys/fs/cgroup/${hierarchy#name=}
  mkdir "$folder"
  mount -t cgroup -o "${hierarchy/name=/none,name=}" cgroup "$folder"
  mkdir -p "$folder/$NODE"
done
for list in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$list" >"/sys/fs/cgroup/cpuset/$NODE/cpuset.$list"; done
for folder in /run /var/log /var/lib/cni; do mkdir -p "$folder"; mount -t tmpfs tmpfs "$folder"; done
mkdir -p /run/netns /run/lock "$RUN/tmp"
mount --bind "$RUN/tmp" /tmp # volumes are below /tmp

hostname "$NODE"
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip addr add "$IP/24" dev eth0
ip link set eth0 up
ip route add default via "$MACHINE"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
# New connections that are forwarded go to kube-network-policies, once it listens.
iptables -t mangle -A FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100 --queue-bypass

# Runs a component, and again half a second after it has ended, unless it is held (control.sh stop).
service() {
  local name=$1
  shift
  while :; do
    while [[ -e $RUN/held/$name ]]; do sleep 0.1; done
    "$@" >>"$RUN/log/$name.log" 2>&1 &
    echo $! >"$RUN/pid/.$name" && mv "$RUN/pid/.$name" "$RUN/pid/$name"
    wait $!
    echo "$name ended with $? at $(date +%T)"
    rm "$RUN/pid/$name"
    sleep 0.5
  done &
}

service etcd etcd --name "$NODE" --data-dir "$RUN/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster "$NODE=http://127.0.0.1:2380" \
  --unsafe-no-fsync --log-level warn
service containerd containerd --config "$RUN/config/containerd.toml"
service apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address="$IP" --advertise-address="$IP" --secure-port=6443 \
  --service-cluster-ip-range="$SERVICES" --allow-privileged=true --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
  --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --kubelet-client-certificate="$PKI/apiserver-kubelet.crt" --kubelet-client-key="$PKI/apiserver-kubelet.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --service-account-key-file="$PKI/accounts.pub" --service-account-signing-key-file="$PKI/accounts.key" \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --requestheader-client-ca-file="$PKI/front-ca.crt" --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
  --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key" --enable-aggregator-routing=true --profiling=false
until [[ -S $RUN/containerd.sock ]]; do sleep 0.05; done
for image in "$PARTS"/images/*.tar; do ctr --address "$RUN/containerd.sock" --namespace k8s.io images import "$image"; done
until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
# With kube-api-qps at its default the forty controllers wait five seconds for their tokens.
as() { echo "--kubeconfig=$PKI/$1.kubeconfig" "--authentication-kubeconfig=$PKI/$1.kubeconfig" "--authorization-kubeconfig=$PKI/$1.kubeconfig"; }
# shellcheck disable=SC2046 # three words
service controllers kube-controller-manager $(as controllers) --bind-address=127.0.0.1 --leader-elect=false \
  --allocate-node-cidrs=true --cluster-cidr="$PODS" --service-cluster-ip-range="$SERVICES" --use-service-account-credentials=true \
  --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/accounts.key" \
  --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" --enable-hostpath-provisioner=true \
  --kube-api-qps=300 --kube-api-burst=600
# shellcheck disable=SC2046
service scheduler kube-scheduler $(as scheduler) --bind-address=127.0.0.1 --leader-elect=false
service kubelet kubelet --config="$RUN/config/kubelet.yaml" --kubeconfig="$PKI/kubelet.kubeconfig" --hostname-override="$NODE" --node-ip="$IP" \
  --root-dir="$RUN/kubelet"
service proxy kube-proxy --config="$RUN/config/proxy.yaml" --hostname-override="$NODE"
# A claim's folder belongs to root and hostPath knows no fsGroup; Pods that are not root write there too.
while :; do
  chmod 0777 /tmp/hostpath_pv/* 2>/dev/null
  sleep 0.3
done
