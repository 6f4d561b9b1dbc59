#!/bin/sh
# Installs what the controllers in this folder need to be built and is not there yet: Debian packages with apt-get
# (through sudo where this is not root), targets of the Rust toolchain with rustup. Not wasm-tools, which takes minutes to
# build and which wat-minimal alone needs: its tests do without.
set -eu

packages="clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32"
targets="wasm32-unknown-unknown wasm32-wasip2"

give_up() {
  echo "install-tools.sh: $1" >&2
  exit 1
}

is_installed() {
  [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=""
if command -v dpkg-query >/dev/null; then
  for package in $packages; do
    is_installed "$package" || missing="$missing $package"
  done
else
  command -v clang-19 >/dev/null || missing=$packages
fi

if [ -n "$missing" ]; then
  command -v apt-get >/dev/null ||
    give_up "there is no apt-get here; install your system's counterparts of:$missing"
  as_root=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || give_up "run this as root, or install yourself:$missing"
    as_root=sudo
  fi
  # shellcheck disable=SC2086 # the words of these lists are meant to be split
  { $as_root apt-get update && $as_root apt-get install --yes --no-install-recommends $missing; } ||
    give_up "apt-get could not install:$missing"
fi

command -v rustup >/dev/null || give_up "there is no rustup; install it (https://rustup.rs), or these targets: $targets"
# shellcheck disable=SC2086
rustup target add $targets || give_up "rustup could not add: $targets"
