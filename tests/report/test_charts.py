"""The pictures: inline SVG in the page's colours, the same for the same values."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from lab.report.charts import exact_chart, loss_chart
from lab.report.collect import Curve

CURVE = Curve([(10, 2.0), (20, 1.0)], [(20, 1.2)])
FIGURES = {
    "base": {"tool_call_exact": 0.0, "num_exact": 0, "num_tool_calls": 84},
    "tuned": {"tool_call_exact": 0.75, "num_exact": 63, "num_tool_calls": 84},
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_letters_stay_letters_and_say_what_is_drawn() -> None:
    assert {"training", "held out", "loss", "step"} <= set(texts(loss_chart(CURVE)))
    assert {"0.0 %  (0 of 84)", "75.0 %  (63 of 84)", "base", "tuned"} <= set(texts(exact_chart(FIGURES)))


def test_the_same_values_give_the_same_bytes_without_a_date() -> None:
    assert loss_chart(CURVE) == loss_chart(CURVE)
    assert "<metadata>" not in loss_chart(CURVE)


def test_colours_are_the_pages_own_and_the_ground_is_transparent() -> None:
    svg = exact_chart(FIGURES)
    assert "var(--tuned)" in svg
    assert "#00000" not in svg
    assert "#ffffff" not in svg


def test_a_chart_has_a_name_for_readers_who_do_not_see_it_and_fits_its_column() -> None:
    root = ElementTree.fromstring(loss_chart(CURVE))
    assert root.get("aria-label") == "Loss over training steps"
    assert root.get("viewBox")
    assert root.get("width") is None


def test_points_that_are_not_finite_are_left_out() -> None:
    assert loss_chart(Curve([(1, float("nan"))], [])) == ""
    assert "held out" in texts(loss_chart(Curve([(1, float("inf"))], [(2, 1.0)])))


def test_no_held_out_call_is_no_chart() -> None:
    assert exact_chart({"base": {"tool_call_exact": None}}) == ""
