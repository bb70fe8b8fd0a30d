"""The ladder diagram from an event stream: arrows between the right nodes, lost ones dashed, in both forms."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from locum.lab.network.topology import figure_5
from locum.lab.report.diagram import as_html, as_svg, as_text
from locum.lab.report.ladder import Arrow, Note, draw
from locum.lab.timeline import Event

TOPOLOGY = figure_5()
NODES = [TOPOLOGY.node(name) for name in ("mn", "an1", "an2", "ha", "an3", "mnps")]
STORY = [
    Event(1.000, "mn", "sent", "601", detail={"agent": "10.10.21.1", "lifetime": 300}),
    Event(1.001, "an1", "sent", "602", detail={"home_agent": "10.10.4.2"}),
    Event(1.003, "ha", "bound", "602", detail={"care_of": "10.10.21.1"}),
    Event(1.004, "ha", "sent", "603", detail={"to": "10.10.21.1"}),
    Event(1.005, "an1", "sent", "604", detail={"code": 0}),
    Event(1.006, "mn", "registered", "604"),
    Event(2.500, "lab", "radio-cut", detail={"link": "an1-mn"}),
    Event(2.600, "mn", "sent", "634", detail={"request": "prepare", "peer": "10.10.23.2"}),
    Event(9.000, "an3", "sent", "618", detail={"peer": "10.10.23.2"}),
]


def owner(address: str) -> str | None:
    return "mn" if address.startswith("10.10.100.") else TOPOLOGY.owner(address)


def ladder() -> "list[Arrow | Note]":
    return list(draw("a story", STORY, NODES, owner).rows)


def test_messages_are_drawn_between_their_ends() -> None:
    arrows = [row for row in ladder() if isinstance(row, Arrow)]
    assert [(row.message, row.sender, row.receiver) for row in arrows] == [
        ("601", "mn", "an1"),
        ("602", "an1", "ha"),
        ("603", "ha", "an1"),
        ("604", "an1", "mn"),
        ("634", "mn", "mnps"),
        ("618", "an3", "mnps"),
    ]
    assert arrows[1].arrived == 1.003
    assert arrows[4].arrived is None
    assert arrows[4].label == "prepare"


def test_marks_of_the_lab_are_notes() -> None:
    (note,) = (row for row in ladder() if isinstance(row, Note))
    assert note.text == "radio cut · link an1-mn"


def test_as_text() -> None:
    text = as_text(draw("a story", STORY, NODES, owner))
    lines = text.splitlines()
    assert lines[0] == "a story"
    assert "mn 504" in lines[2] and "mnps 504''" in lines[2] and "an2" not in lines[2]
    assert any(re.search(r"│─+ 602 [a-z]* ?─+▶│", line) for line in lines)
    assert any("══ radio cut" in line for line in lines)
    assert any("634 prepare" in line and "╌" in line for line in lines)
    assert any("… 6.4 s …" in line for line in lines)
    starts = [line.index("│") for line in lines if "602" in line or "603" in line]
    assert len(set(starts)) == 1, "lifelines stay in their columns"


def test_html_is_one_file_with_every_message() -> None:
    page = as_html(draw("a <story>", STORY, NODES, owner))
    assert "&lt;story&gt;" in page and "<story>" not in page
    assert "http" not in page.replace("http-equiv", ""), "nothing is fetched from elsewhere"
    opened: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "br"):
                opened.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balance().feed(page)
    assert not opened
    for number in ("601", "602", "603", "604", "634", "618"):
        assert f">{number}</tspan>" in page


def test_picture_is_well_formed_and_has_every_message() -> None:
    made = draw("a <story>", STORY, NODES, owner)
    picture = ElementTree.fromstring(as_svg(made))
    assert picture.tag == "{http://www.w3.org/2000/svg}svg" and picture.get("aria-label") == "a <story>"
    arrows = picture.findall(".//{http://www.w3.org/2000/svg}g")
    assert len(arrows) == len(made.messages)


def test_pages_are_drawn_from_the_event_to_the_device() -> None:
    sent = [("mnps", "page-asked", "1172"), ("ha", "sent", "1170"), ("an1", "calling", "1170")]
    story = [Event(number / 10, node, kind, message) for number, (node, kind, message) in enumerate(sent)]
    rows = [row for row in draw("pages", story, NODES, owner).rows if isinstance(row, Arrow)]
    assert [(row.message, row.sender, row.receiver, row.arrived is not None) for row in rows] == [
        ("1172", "mnps", "ha", True),
        ("1170", "ha", "an1", True),
    ]


def test_an_empty_story() -> None:
    nothing = draw("nothing", [], NODES, owner)
    assert "no messages" in as_text(nothing)
    assert "</html>" in as_html(nothing)
