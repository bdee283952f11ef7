#!/usr/bin/env bash
# python-chess 1.11.2: a clock comment is rounded after it was split into hours, minutes and seconds. So a clock of 3599.9999 s
# is written as 0:59:60, and 59.9996 s as 0:00:60, which other readers of PGN refuse. A clock below zero, which engine matches
# with a margin have, is written as 0:00:00 without a word. Round to milliseconds first, and keep negative clocks elsewhere.
#
# Output seen:
#   chess 1.11.2
#   3599.9999 -> [%clk 0:59:60]
#   59.9996 -> [%clk 0:00:60]
#   -0.886 -> [%clk 0:00:00]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check chess==1.11.2
"$folder/venv/bin/python" - <<'PYTHON'
import chess
import chess.pgn

print("chess", chess.__version__)
written = []
for seconds in (3599.9999, 59.9996, -0.886):
    move = chess.pgn.Game().add_main_variation(chess.Move.from_uci("e2e4"))
    move.set_clock(seconds)
    written.append(move.comment)
    print(seconds, "->", move.comment)
raise SystemExit(written != ["[%clk 0:59:60]", "[%clk 0:00:60]", "[%clk 0:00:00]"])
PYTHON
