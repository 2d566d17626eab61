"""A full disk is one line and loses nothing; many limits under every command are ``full_disk``'s."""

from peaknet_pipeline_tests.commands import full_disk


def test_a_stream_on_a_full_disk_says_so_and_goes_on_when_there_is_room() -> None:
    assert full_disk.main(1, seed=3, only=("stream",)) == {"stream": (1, [])}
