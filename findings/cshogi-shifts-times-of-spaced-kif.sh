#!/usr/bin/env bash
# cshogi 1.1.0: in a KIF file, a time with spaces around its slash, `(00:16 / 00:00:16)`, as several programs write it, is left
# out of the list of times, while its move is kept. The lists of moves and times then have different lengths, and every later
# time is assigned to the wrong move. Nothing is raised.
#
# Output seen:
#   cshogi 1.1.0
#   ( 0:16/00:00:16) -> 3 moves, times [16, 5, 7]
#   (00:16 / 00:00:16) -> 3 moves, times [5, 7]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cshogi==1.1.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from cshogi import KIF

GAME = """手合割：平手
先手：a
後手：b
手数----指手---------消費時間--
   1 ７六歩(77)   %s
   2 ３四歩(33)   ( 0:05/00:00:05)
   3 ２六歩(27)   ( 0:07/00:00:23)
"""
print("cshogi", version("cshogi"))
found = []
for time in ("( 0:16/00:00:16)", "(00:16 / 00:00:16)"):
    game = KIF.Parser.parse_str(GAME % time)
    found.append((len(game.moves), list(game.times)))
    print(time, "->", len(game.moves), "moves, times", list(game.times))
raise SystemExit(found != [(3, [16, 5, 7]), (3, [5, 7])])
PYTHON
