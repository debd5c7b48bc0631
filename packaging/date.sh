#!/bin/sh
# When the sources were changed last, in seconds since 1970: what packages are dated with, so that the
# same sources give the same packages.
git -C "$(dirname "$0")" log -1 --format=%ct 2>/dev/null || date +%s
