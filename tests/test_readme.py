"""Numbers in the README and in the model cards are those of the committed results."""

import re

import pytest

from experiments.readme import README, filled
from wvm_rl.errors import InputError
from wvm_rl.model.critic_folder import SHIPPED


@pytest.mark.parametrize("path", [README, *sorted(SHIPPED.glob("*/README.md"))], ids=lambda path: path.parent.name)
def test_tables_are_those_of_the_results(path):
    assert filled(path.read_text()) == path.read_text(), "run `python -m experiments.readme`"


TEXTS = [README, *sorted(README.parent.glob("*/README.md")), *sorted(README.parent.glob("docs/*.md"))]


@pytest.mark.parametrize("path", [*TEXTS, *sorted(SHIPPED.glob("*/README.md"))], ids=lambda path: path.parent.name)
def test_links_lead_somewhere(path):
    lost = []
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target.read_text()))):
            lost.append(link)
    assert lost == []


def anchors(text: str) -> set[str]:
    """Of a text's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (
            "<!-- table: scores -->\n<!-- end -->",
            "table: scores -->`: no such table; choose from job, bench, pairs, shifts, study",
        ),
        ("<!-- table: shifts nobody -->\n<!-- end -->", r"bench_nobody_shifts\.json: no such results"),
        ("<!-- table: bench 0 -->\n<!-- end -->", "table: bench 0 -->`: missing a required argument: 'first'"),
        ("<!-- table: study -->\n\n<!-- table: study -->\n<!-- end -->", "lacks its `<!-- end -->`"),
    ],
)
def test_tables_of_nothing_are_refused(marker, message):
    with pytest.raises(InputError, match=message):
        filled(marker)
