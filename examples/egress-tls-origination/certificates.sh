#!/bin/sh
# Makes an authority, a certificate for each server, one for us, and secrets.yaml with what sidecars need.
set -eu
cd "$(dirname "$0")"
. ./openssl.sh

authority example
certificate shop shop.example.com example
certificate bank bank.example.com example
certificate us us.example.com example
{
    secret shop-authority default Opaque
    field ca.crt example.pem
    secret bank-client default Opaque
    field tls.crt us.pem
    field tls.key us.key
    field ca.crt example.pem
} >../secrets.yaml
