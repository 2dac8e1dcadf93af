#!/bin/sh
# Makes an authority, and a certificate for the server behind the gateway.
set -eu
cd "$(dirname "$0")"
. ./openssl.sh

authority example
certificate echo echo.example.com example
