"""Numbers in the README and in the model cards are those of the committed results."""

import pytest

from experiments.readme import README, SHIPPED, filled
from wvm_rl.errors import InputError


@pytest.mark.parametrize("path", [README, *sorted(SHIPPED.glob("*/README.md"))], ids=lambda path: path.parent.name)
def test_tables_are_those_of_the_results(path):
    text = path.read_text()
    assert "<!-- table: " in text
    assert filled(text) == text, "run `python -m experiments.readme`"


def test_tables_of_nothing_are_refused():
    with pytest.raises(InputError, match="table: scores -->`: no such table; choose from bench, shifts, study"):
        filled("<!-- table: scores -->\n<!-- end -->")
    with pytest.raises(InputError, match=r"bench_nobody_shifts\.json: no such scores"):
        filled("<!-- table: shifts nobody -->\n<!-- end -->")
