#!/usr/bin/env bash
# Licences, sources and versions of all crates; the crates that are linked into the library, which must be
# those of the table in SECURITY.md; a list of components.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/cargo-tool.sh cargo-deny 0.20.2
scripts/cargo-tool.sh cargo-cyclonedx 0.5.9
PATH=$PWD/target/tools/bin:$PATH

cargo deny --log-level error check licenses bans sources
cargo deny --log-level error --manifest-path fuzz/Cargo.toml --config deny.toml check bans sources

# Macros run in the compiler.
linked=$(cargo tree --package session-group --edges normal,no-proc-macro --prefix none --no-dedupe |
    awk '$1 != "session-group" { print $1 }' | LC_ALL=C sort -u)
listed=$(sed -n '/^| crate/,/^$/s/^| \([a-z][^|]*\) |.*/\1/p' SECURITY.md | grep -v '^crate$' |
    tr -d ' ' | tr ',' '\n' | LC_ALL=C sort -u)
diff <(echo "$listed") <(echo "$linked") || {
    echo "error: SECURITY.md lists other crates (<) than are linked (>)" >&2
    exit 1
}

mkdir -p target/sbom
cargo cyclonedx --quiet --format json --manifest-path Cargo.toml --override-filename session-group.cdx
mv session-group.cdx.json target/sbom/
# One is left in each member of the workspace.
find . -mindepth 2 -maxdepth 2 -name session-group.cdx.json -delete
echo "target/sbom/session-group.cdx.json: $(grep -c '"purl"' target/sbom/session-group.cdx.json) components"

if cargo deny --log-level error fetch db 2>/dev/null; then
    cargo deny --log-level error check advisories
else
    echo "RustSec's database can't be reached from here: known vulnerabilities were not looked up"
fi
