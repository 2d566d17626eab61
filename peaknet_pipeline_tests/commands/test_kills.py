"""A stream that is killed loses, doubles and leaves nothing; many kills are ``kill_driver``'s."""

import pytest

from peaknet_pipeline_tests.commands import kill_driver


@pytest.mark.parametrize(("source", "signal"), [("swmr", "KILL"), ("folder", "TERM")])
def test_a_stream_that_is_ended_once_has_every_frame_after_the_next(source: str, signal: str) -> None:
    told = kill_driver.main(source, signal, 1, seed=2, until=0.8)
    assert (told.rounds, told.kills) == (1, 1)
    assert (told.lost, told.doubled, told.wrong, told.leftovers, told.endings) == (0, 0, 0, [], [])
