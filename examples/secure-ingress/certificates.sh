#!/bin/sh
# Makes an authority, a certificate for each host, one for a client, and secrets.yaml with those of the hosts.
set -eu
cd "$(dirname "$0")"
. ./openssl.sh

authority example
certificate shop shop.example.com example
certificate bank bank.example.com example
certificate client client.example.com example
{
    secret shop-credential istio-system kubernetes.io/tls
    field tls.crt shop.pem
    field tls.key shop.key
    secret bank-credential istio-system Opaque
    field tls.crt bank.pem
    field tls.key bank.key
    field ca.crt example.pem
} >../secrets.yaml
