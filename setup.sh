#!/usr/bin/env bash
# Makes .venv with the tested versions and checks what rendering needs. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")"

python=""
for candidate in "${PYTHON:-}" python3.11 python3.12 python3; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || { echo "error: needs Python 3.11 or 3.12; install one, or name it: PYTHON=/path/to/python bash setup.sh" >&2; exit 2; }

missing=()
have_library() { "$python" -c "import ctypes, sys; ctypes.CDLL(sys.argv[1])" "$1" 2>/dev/null; }
rendering=()
have_library libEGL.so.1 || rendering+=(libegl1)
have_library libEGL_mesa.so.0 || [ -e /dev/nvidiactl ] || rendering+=(libegl-mesa0 libgl1-mesa-dri)
command -v cc >/dev/null || missing+=(build-essential)  # robosuite's evdev is built from source
[ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing+=("$(basename "$(readlink -f "$(command -v "$python")")")-dev")
install() {  # system packages, if this user may
  [ $# -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  echo "installing system packages: $*"
  apt-get update -qq || return 1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}
if [ ${#missing[@]} -gt 0 ] && ! install "${missing[@]}" "${rendering[@]}"; then
  echo "error: system packages are missing; run: sudo apt-get install ${missing[*]} ${rendering[*]}" >&2
  exit 2
elif [ ${#missing[@]} -eq 0 ] && [ ${#rendering[@]} -gt 0 ] && ! install "${rendering[@]}"; then
  echo "warning: nothing can be rendered, so only jobs with data.fps=0 value=oracle will run; for the others:" >&2
  echo "  sudo apt-get install ${rendering[*]}" >&2
fi

if ! [ -e .venv/installed ] || ! cmp -s requirements.txt .venv/installed; then
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  echo "installing Python packages into .venv (about 2 GB, a few minutes)"
  .venv/bin/pip install -q --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/installed
fi
echo "ready: .venv has $(.venv/bin/python --version)"
