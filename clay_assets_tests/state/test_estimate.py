from dataclasses import replace

from clay_assets.state import Rate, TileState
from clay_assets.state.states import outlook, state_table

NEW = TileState("27WXN", "new", 7_200, 64_800_000, 7_200, 64_800_000, "listed")


def current(chips: int, seconds: float, model: str = "clay-v0-small", device: str = "cuda:0") -> TileState:
    rate = Rate(chips, seconds, model, device)
    return TileState("27WXP", "current", chips, 9 * chips, 0, 0, "listed", "embedded", rate=rate)


def test_rate_is_all_chips_divided_by_all_seconds() -> None:
    # Most chips of a small tile are embedded during a large tile before it, so its own rate means nothing.
    states = [NEW, current(900, 449.0), current(50, 0.001), current(50, 50.999)]

    assert outlook(states) == [
        "7,200 chips (64.8 MB) remain to be embedded.",
        "Earlier runs embedded 2 chips a second: 1,000 chips of 3 tiles, with clay-v0-small on cuda:0.",
        "At that rate it takes 1.0 hours.",
    ]


def test_rate_is_that_of_the_model_and_device_with_most_chips() -> None:
    usual = [current(60, 10.0), current(50, 10.0)]
    others = [*[current(33, 1.0, device="cpu")] * 3, current(100, 1.0, model="clay-v0-tiny")]

    assert outlook([NEW, *others, *usual])[1] == (
        "Earlier runs embedded 5.5 chips a second: 110 chips of 2 tiles, with clay-v0-small on cuda:0."
    )


def test_without_an_earlier_run_no_time_is_estimated() -> None:
    assert outlook([NEW])[1:] == ["The rate is unknown until one of these tiles has been embedded."]
    assert outlook([current(5, 1.0)]) == ["Nothing remains to be embedded."]


def test_table_has_a_row_for_each_state_that_occurs_and_one_for_all() -> None:
    states = [NEW, replace(NEW, state="changed", to_embed=1), replace(NEW, state="changed", to_embed=0)]

    rows = [line.split()[:6] for line in state_table(states)]

    assert rows == [
        ["state", "tiles", "chips", "size", "to", "embed"],
        ["new", "1", "7,200", "64.8", "MB", "7,200"],
        ["changed", "2", "14,400", "129.6", "MB", "1"],
        ["all", "3", "21,600", "194.4", "MB", "7,201"],
    ]
