#!/bin/bash
# Keys, certificates and kubeconfigs of the cluster, made once per run folder.
. "$(dirname "$0")/env.sh"
[[ -f $PKI/done ]] && exit 0
mkdir -p "$PKI"
cd "$PKI"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
authority() {
  key "$1"
  openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 3650 -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
}
certificate() { # name, authority, subject, alternative names
  key "$1"
  printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n%s\n' "${4:+subjectAltName=$4}" >"$1.ext"
  openssl req -new -key "$1.key" -subj "$3" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.ext" "$1.csr"
}
authority ca
authority front-ca
certificate apiserver ca /CN=kube-apiserver \
  "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:$API,IP:$IP,IP:127.0.0.1"
certificate kubelet-server ca "/CN=$NODE" "DNS:$NODE,IP:$IP"
certificate apiserver-kubelet ca /O=system:masters/CN=apiserver-kubelet
certificate front-proxy front-ca /CN=front-proxy-client
certificate admin ca /O=system:masters/CN=admin
certificate controllers ca /CN=system:kube-controller-manager
certificate scheduler ca /CN=system:kube-scheduler
certificate kubelet ca "/O=system:nodes/CN=system:node:$NODE"
certificate proxy ca /CN=system:kube-proxy
openssl genrsa -out accounts.key 2048 2>/dev/null
openssl rsa -in accounts.key -pubout -out accounts.pub 2>/dev/null
for user in admin controllers scheduler kubelet proxy; do
  cat >$user.kubeconfig <<K
apiVersion: v1
kind: Config
current-context: $NODE
clusters: [{name: $NODE, cluster: {server: "https://$IP:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $user, user: {client-certificate-data: $(base64 -w0 $user.crt), client-key-data: $(base64 -w0 $user.key)}}]
contexts: [{name: $NODE, context: {cluster: $NODE, user: $user}}]
K
done
touch done
