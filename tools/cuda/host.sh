#!/usr/bin/env bash
# Builds engine/cuda/driver/host/host_amd64 from host.c, with gcc and binutils. It is
# linked against stubs that ask for the oldest symbols of the GNU C library, so that it
# runs on systems from 2010 on.
set -euo pipefail
cd "$(dirname "$0")/../../engine/cuda/driver/host"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
echo 'void *dlopen(){return 0;} void *dlsym(){return 0;} void *dlerror(){return 0;}' >"$tmp/dl.c"
echo 'int __libc_start_main(){return 0;}' >"$tmp/c.c"
echo 'GLIBC_2.2.5 { global: *; };' >"$tmp/versions"
for lib in dl:libdl.so.2 c:libc.so.6; do
	gcc -shared -nostdlib -fno-builtin -Wl,-soname,"${lib#*:}" -Wl,--version-script="$tmp/versions" -o "$tmp/${lib#*:}" "$tmp/${lib%%:*}.c"
done
gcc -O2 -Wall -Wextra -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fPIE -pie -nostartfiles -nostdlib \
	-Wl,--build-id=none -Wl,-z,noexecstack -Wl,--hash-style=both -s -o host_amd64 host.c "$tmp/libdl.so.2" "$tmp/libc.so.6"
sha256sum host.c | cut -d' ' -f1 >host_amd64.source
