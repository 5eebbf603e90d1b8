"""A wait is announced only if it is long."""

import logging
import time

from media.waiting import waiting


def test_a_long_wait_is_announced_and_its_time_is_said(caplog):
    with caplog.at_level(logging.INFO):
        with waiting("compiling", 0.05):
            time.sleep(0.2)
        with waiting("reading", 5):
            pass
    assert [record.getMessage() for record in caplog.records] == ["compiling…", "compiling: 0 s."]
