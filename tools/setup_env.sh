#!/usr/bin/env bash
# Build .venv with everything mmwave needs, of wheels and pure Python alone; `make env` calls it.
# Needs git, Python 3.11 to 3.13 and pip.
#
# PYTHON    the interpreter to build it with
# MMCV_OPS  1: also compile mmcv's own C++ and CUDA ops, which takes 10 minutes or more and a compiler. Nothing
#           here needs them: torchvision's serve (mmwave/mmcv_ops). MAX_JOBS: parallel compiler jobs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

case ${MMCV_OPS:=0} in
    0 | 1) ;;
    *) fail "MMCV_OPS must be 0 or 1, not '$MMCV_OPS'" ;;
esac
if [ "$MMCV_OPS" = 1 ] && ! command -v c++ >/dev/null && ! command -v g++ >/dev/null; then
    fail "no C++ compiler found, which MMCV_OPS=1 needs: install one (Debian: apt-get install g++), or leave MMCV_OPS out"
fi

# A name on the PATH may be a shim that does not run, so each candidate is asked for its version.
fits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12), (3, 13)])' 2>/dev/null; }
python=
for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    if fits "$candidate"; then
        python=$("$candidate" -c 'import sys; print(sys.executable)')
        break
    fi
done
[ -n "$python" ] || fail "no Python 3.11, 3.12 or 3.13 found (tried ${PYTHON:-python3.11, python3.12, python3.13, python3, python}): install one, or set PYTHON to its path"

# uv, the caller's own or one in a small environment of this folder; pyproject.toml states the oldest that will do.
oldest=$(sed -n 's/^required-version = ">=\([0-9.]*\)".*/\1/p' pyproject.toml)
uv=$(command -v uv || true)
if [ -z "$uv" ] || [ "$(printf '%s\n' "$oldest" "$("$uv" --version | cut -d' ' -f2)" | sort -V | head -n 1)" != "$oldest" ]; then
    uv=.uv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "== installing uv into .uv"
        "$python" -m venv .uv || fail "$python cannot make environments: install its venv module (Debian: apt-get install python3-venv)"
        .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=$oldest"
    fi
fi

echo "== environment .venv with $("$python" --version)"
fits .venv/bin/python || "$uv" venv --quiet --clear --python "$python" .venv

echo "== installing torch, the OpenMMLab stack and mmwave"
install() { "$uv" pip install --python .venv/bin/python --constraints constraints.txt --build-constraints constraints.txt "$@"; }
# uv is silent while it downloads and builds: say that it lives.
(while sleep 30 >/dev/null; do echo "   ... at it for ${SECONDS} s"; done) &
heartbeat=$!
trap 'kill $heartbeat 2>/dev/null' EXIT
install --editable '.[all,dev,track,kernels,bench,export]'

# Some of their sources hold escape sequences of which Python 3.12 and newer warn once, when it compiles them: now.
.venv/bin/python -W ignore -c 'import compileall, sysconfig
for name in ("mmcv", "mmdet", "mmengine", "mmpretrain", "mmseg"):
    compileall.compile_dir(sysconfig.get_path("purelib") + "/" + name, quiet=2, workers=0)'

# Ops that an earlier run compiled do not load with another torch.
if [ "$MMCV_OPS" = 0 ] && .venv/bin/python -c 'import mmcv, pathlib; raise SystemExit(not [*pathlib.Path(mmcv.__file__).parent.glob("_ext*.so")])' &&
    ! .venv/bin/python -c 'import mmcv._ext' 2>/dev/null; then
    echo "== mmcv's compiled ops were built for another torch: replacing them by torchvision's"
    install --no-deps --reinstall-package onedl-mmcv onedl-mmcv
fi

if [ "$MMCV_OPS" = 1 ]; then
    torch=$(.venv/bin/python -c 'import torch; print(torch.__version__, torch.version.cuda)')
    device=cpu
    if command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
        device=cuda
    else
        export CUDA_VISIBLE_DEVICES= # where torch sees a GPU, mmcv's build wants the CUDA toolkit
        echo "   no nvcc found: mmcv's ops will run on the CPU only"
    fi
    # mmcv asks for C++17; the headers of torch 2.14 and later want C++20. The last option counts.
    if .venv/bin/python -c 'import torch; raise SystemExit(torch.__version__ < "2.14")'; then
        mkdir -p .venv/compiler
        printf '#!/bin/sh\nexec %s "$@" -std=c++20\n' "${CXX:-$(command -v c++ || command -v g++)}" >.venv/compiler/c++
        chmod +x .venv/compiler/c++
        export CXX=$PWD/.venv/compiler/c++ NVCC_APPEND_FLAGS="${NVCC_APPEND_FLAGS:-} -std=c++20"
    fi
    echo "== compiling mmcv's ops for torch $torch ($device)"
    install ninja psutil packaging setuptools wheel
    # uv keeps what it builds, by its settings. mmcv's build has none of this name, it is for uv: a build for each torch.
    MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)} install --no-deps \
        --no-build-isolation-package onedl-mmcv --reinstall-package onedl-mmcv \
        --config-settings-package "onedl-mmcv:built-for=torch ${torch/ /-} $device" onedl-mmcv
    .venv/bin/python -c 'import mmcv._ext' || fail "mmcv came without its compiled ops, though MMCV_OPS=1: see the messages above"
fi

.venv/bin/python -c 'import mmwave.mmcv_ops, mmdet, mmseg, mmpretrain' || fail "the environment is incomplete: see the message above"
echo "== ready after ${SECONDS} s: source .venv/bin/activate"
