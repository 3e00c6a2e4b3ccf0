#!/usr/bin/env bash
# Build .venv with everything mmwave needs; `make env` calls it. Needs git, a C++ compiler, Python 3.11 or 3.12 and pip.
# PYTHON names the interpreter, MAX_JOBS the parallel compiler jobs (default: one a core).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

# A name on the PATH may be a shim that does not run, so each candidate is asked for its version.
fits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null; }
python=
for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
    if fits "$candidate"; then
        python=$("$candidate" -c 'import sys; print(sys.executable)')
        break
    fi
done
[ -n "$python" ] || fail "no Python 3.11 or 3.12 found (tried ${PYTHON:-python3.11, python3.12, python3, python}): install one, or set PYTHON to its path"
command -v c++ >/dev/null || command -v g++ >/dev/null || fail "no C++ compiler found: mmcv's ops are compiled here (Debian: apt-get install g++)"

# uv, the caller's own or one in a small environment of this folder. 0.8.15 is the oldest that knows the
# build dependencies pyproject.toml states for mmcv.
uv=$(command -v uv || true)
if [ -z "$uv" ] || [ "$(printf '%s\n' 0.8.15 "$("$uv" --version | cut -d' ' -f2)" | sort -V | head -n 1)" != 0.8.15 ]; then
    uv=.uv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "== installing uv into .uv"
        "$python" -m venv .uv
        .uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8.15'
    fi
fi

echo "== environment .venv with $("$python" --version)"
fits .venv/bin/python || "$uv" venv --quiet --clear --python "$python" .venv

echo "== installing torch, the OpenMMLab stack and mmwave; mmcv's C++ ops are compiled the first time, 5 to 15 minutes"
# Where torch sees a GPU, mmcv's build wants the CUDA toolkit; a driver alone is not enough for that.
if ! command -v nvcc >/dev/null && [ ! -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
    export CUDA_VISIBLE_DEVICES=
    echo "   no nvcc found: mmcv's ops will run on the CPU only, detectors need them on the GPU (see README.md)"
fi
# uv is silent while it compiles: say that it lives.
(while sleep 30; do echo "   ... at it for ${SECONDS} s"; done) &
heartbeat=$!
trap 'kill $heartbeat 2>/dev/null' EXIT
MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)} "$uv" pip install --python .venv/bin/python \
    --constraints constraints.txt --build-constraints constraints.txt --editable '.[all,dev,track,kernels]'

# An mmcv that was built without torch installs without complaint and fails at the first detector.
.venv/bin/python -c 'import mmcv._ext' || fail "mmcv came without its compiled ops. Remove the cached build and try again: $uv cache clean onedl-mmcv && rm -rf .venv && make env"
.venv/bin/python -c 'import mmdet, mmseg, mmpretrain, mmwave' || fail "the environment is incomplete: see the message above"
echo "== ready: source .venv/bin/activate"
