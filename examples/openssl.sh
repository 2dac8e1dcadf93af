# What the examples' certificates.sh have in common, read beside them. Certificates go into a folder of that name; names of
# files are told without their ending.
set -eu
umask 077
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

field() { # NAME FILE
    printf '  %s: %s\n' "$1" "$(base64 -w0 <"$2")"
}

secret() { # NAME NAMESPACE TYPE
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: %s\ndata:\n' "$1" "$2" "$3"
}
