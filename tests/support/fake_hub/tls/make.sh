#!/bin/sh
# Makes the CA and the certificate that the tests' own Hub shows: for localhost and hub.test, of no use anywhere else.
# Run again only if it is ever lost; the files are committed so that tests need no openssl. Good for a hundred years.
set -eu
cd "$(dirname "$0")"
days=36500
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out ca.key
openssl req -x509 -new -key ca.key -sha256 -days $days -subj "/CN=hf-mem-probe tests only" -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out hub.key
openssl req -new -key hub.key -subj "/CN=hub.test" -out hub.csr
printf 'subjectAltName=DNS:localhost,DNS:hub.test,DNS:store.test,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' > hub.ext
openssl x509 -req -in hub.csr -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days $days -extfile hub.ext -out hub.pem
# A CA that signed nothing.
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out other.key
openssl req -x509 -new -key other.key -sha256 -days $days -subj "/CN=another CA of the tests" -out other-ca.pem
rm -f other.key ca.key ca.srl hub.csr hub.ext
