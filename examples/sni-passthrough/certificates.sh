#!/bin/sh
# Makes an authority, and a certificate for the server behind the gateway.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p certificates
cd certificates

authority() { # NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$1 authority" \
        -keyout "$1.key" -out "$1.pem" 2>/dev/null
}

certificate() { # NAME DNS-NAME AUTHORITY
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
        -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf 'subjectAltName=DNS:%s\n' "$2" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -CAcreateserial -days 365 \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

authority example
certificate echo echo.example.com example
