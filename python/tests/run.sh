#!/bin/sh
# Installs the wheel into an environment of its own and tests what was installed. Arguments go to
# pytest, which comes from .venv, as does TensorFlow.
set -eu
cd "$(dirname "$0")/../.."
venv=target/python-venv

rm -rf "$venv"
.venv/bin/python -m venv --without-pip "$venv"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/tools.pth"
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-index target/wheel/*.whl
exec "$venv/bin/python" -m pytest --config-file python/pyproject.toml --quiet "$@" python/tests
