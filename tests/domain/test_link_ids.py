"""Ids of links name the epoch of their session."""

from __future__ import annotations

import re

import pytest

from syncapp.domain.link_ids import LENGTH, epoch_of, link_epoch, new_link_id
from syncapp.domain.principal import Principal

EPOCH = 1_767_268_680_000


def test_an_id_is_short_random_and_names_the_epoch() -> None:
    ids = {new_link_id(EPOCH) for _ in range(1000)}
    assert len({each[-16:] for each in ids}) == 1000
    assert {epoch_of(each) for each in ids} == {EPOCH}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{24}", each) for each in ids)


@pytest.mark.parametrize("jti", ["", "x", "A" * (LENGTH - 1), "A" * 25, "=" * LENGTH, "ä" * LENGTH, "A===" * 6])
def test_a_text_that_is_no_links_id_names_no_epoch(jti: str) -> None:
    assert epoch_of(jti) == -1


def test_only_a_links_principal_is_bound_to_an_epoch() -> None:
    jti = new_link_id(EPOCH)
    assert link_epoch(Principal(jti=jti)) is None
    assert link_epoch(Principal(jti=jti, is_link=True)) == EPOCH
    assert link_epoch(Principal(is_link=True)) == -1
