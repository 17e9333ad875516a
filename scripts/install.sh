#!/bin/sh
# Install the dependencies of pyproject.toml and constraints.txt into .venv: install.sh EXTRA GROUP...
# Uses uv if it can be installed and reaches the index, because it is several times faster on Torch's wheels; else pip.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
bin=$PWD/.venv/bin

if ! [ -x "$bin/python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "Python 3.11 or newer is needed, and $python is $("$python" --version 2>&1): make PYTHON=/path/to/python3.11" >&2
        exit 1
    }
    "$python" -m venv .venv || {
        echo "$python cannot make a virtual environment: install its venv module (Debian: python3-venv)" >&2
        exit 1
    }
fi

extra=$1
shift
project=.${extra:+[$extra]}
groups=
for group in "$@"; do
    groups="$groups --group $group"
done

export PIP_DISABLE_PIP_VERSION_CHECK=1
[ -x "$bin/uv" ] || "$bin/python" -m pip install --quiet --constraint constraints.txt uv ||
    echo "uv cannot be installed: continuing with pip" >&2
# Compile bytecode now, as pip does: with PYTHONDONTWRITEBYTECODE set, every command would compile SQLAlchemy again.
# shellcheck disable=SC2086  # a list of options
if [ -x "$bin/uv" ] && "$bin/uv" pip install --quiet --compile-bytecode --python "$bin/python" --constraint constraints.txt \
    $groups --editable "$project"; then
    exit 0
fi
echo "installing with pip, which takes some minutes" >&2
"$bin/python" -m pip install --quiet 'pip>=25.1' # the first that knows dependency groups
# shellcheck disable=SC2086
exec "$bin/python" -m pip install --quiet --constraint constraints.txt $groups --editable "$project"
