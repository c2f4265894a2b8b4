"""Real processes, killed: between steps, inside a checkpoint, inside an evaluation; and one that is asked to end."""

import json

import pytest

from experiments.kill_resume import study as kill_resume


@pytest.mark.slow
def test_a_run_that_is_killed_three_times_and_terminated_once_ends_in_the_same_bytes(tmp_path):
    """As the recorded study does it, with one stop of each kind."""
    assert kill_resume.main(["--quick", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "results.json").read_text())
    assert summary["kills"] == 3 and summary["terminated_and_saved"] == 1 and summary["differing"] == []
    assert summary["things_compared_in_each_run"] > 100
    assert {"checkpoint", "evaluation"} <= set(summary["stopped_during"])
    # SIGTERM came in the middle of an epoch of four steps, and that is where the run went on: unless the machine was so
    # busy that the signal arrived when the epoch was over and its checkpoint begun.
    last = summary["stopped"][-1]
    assert last["checkpoint"] % 4 != 0 or last["during"] in ("checkpoint", "after checkpoint"), last
