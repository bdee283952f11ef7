"""The fixed-width records of participants and groups: one format in Python, the same as in the scripts."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from syncapp.domain.session_layout import RECORD_WIDTH, Record, read_records, write_records

LUA = Path(__file__).parents[2] / "lua"
RECORDS = st.lists(
    st.tuples(
        st.integers(-(10**11) + 1, 10**12 - 1),
        st.integers(-(10**11) + 1, 10**12 - 1),
        st.integers(0, 10**9 - 1),
        st.booleans(),
    )
)


@given(records=RECORDS)
def test_records_are_read_as_they_were_written(records: list[Record]) -> None:
    text = write_records(records)
    assert len(text) == RECORD_WIDTH * len(records)
    assert read_records(text) == records


def test_a_record_is_written_as_lua_writes_it() -> None:
    assert write_records([(1500, 298500, 3, True)]) == "        1500      298500        31"
    assert "'%12d%12d%9d%1d'" in (LUA / "_records.lua").read_text()
