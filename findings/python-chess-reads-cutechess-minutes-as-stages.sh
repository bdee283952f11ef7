#!/usr/bin/env bash
# python-chess 1.11.2: in a PGN header a colon separates stages, but engine tournament managers (cutechess, fastchess) write
# minutes:seconds with it. Their `40/1:30+1`, 40 moves in 90 s with 1 s a move, is read without complaint as 40 moves in ONE
# second, then 30 s + 1 s. A program that sets clocks by such headers gives players a second.
#
# Output seen:
#   chess 1.11.2
#   40/1:30+1 -> [(40, 1, 0), (0, 30, 1)]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check chess==1.11.2
"$folder/venv/bin/python" - <<'PYTHON'
import chess
import chess.pgn

print("chess", chess.__version__)
parts = [(part.moves, int(part.time), int(part.increment)) for part in chess.pgn.parse_time_control("40/1:30+1").parts]
print("40/1:30+1 ->", parts)
raise SystemExit(parts != [(40, 1, 0), (0, 30, 1)])
PYTHON
