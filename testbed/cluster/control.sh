#!/bin/bash
# control.sh up (succeeds if it is) | status | pid C | kill C | stop C | start C | load TAR
# C is one of etcd containerd apiserver controllers scheduler kubelet proxy. What is killed comes back by
# itself; what is stopped stays away until it is started.
. "$(dirname "$0")/env.sh"
component() { [[ ${1-} && -e $RUN/log/$1.log ]] || fail "no component '${1-}'; there are: $(cd "$RUN/log" && ls -- *.log | grep -v '^node' | sed 's/\.log//' | xargs)"; }
must_be_up
case ${1-} in
  up) ;;
  status)
    echo "KUBECONFIG=$KUBECONFIG"
    for log in "$RUN"/log/*.log; do
      name=$(basename "$log" .log)
      [[ $name == node ]] || printf '%-12s %s\n' "$name" "$(pid_of "$name" | sed 's/^/pid /;t' | grep . || echo down)"
    done
    "$BIN/kubectl" get nodes -o wide && "$BIN/kubectl" get pods -A
    ;;
  pid) component "${2-}"; pid_of "$2" ;;
  kill | stop)
    component "${2-}"
    [[ $1 == kill ]] || touch "$RUN/held/$2"
    pid=$(pid_of "$2")
    [[ -z $pid ]] || kill -KILL "$pid"
    while [[ -n $pid && $(started "$pid") ]]; do sleep 0.02; done
    ;;
  start) component "${2-}"; rm -f "$RUN/held/$2" ;;
  load)
    [[ -f ${2-} ]] || fail "load: no file '${2-}'"
    nsenter -t "$INIT" --mount --net "$DEB/usr/bin/ctr" --address "$RUN/containerd.sock" --namespace k8s.io images import - <"$2"
    ;;
  *) fail "'${1-}'? status, pid, kill, stop, start or load" ;;
esac
