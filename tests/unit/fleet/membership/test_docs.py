"""The pages on membership name every option with its default, and their examples are accepted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from router_core.contract.policy import PolicyConfig
from router_core.fleet.membership.entries import WorkerEntry, worker_entries
from router_core.fleet.membership.file import FileMembership
from router_core.fleet.membership.kubernetes import KubernetesMembership
from router_core.fleet.membership.static import StaticMembership

DOCS = Path(__file__).parents[4] / "docs"
SOURCES = {"static": StaticMembership, "file": FileMembership, "kubernetes": KubernetesMembership}


@pytest.mark.parametrize("model", [WorkerEntry, *(source.Config for source in SOURCES.values())])
def test_every_option_stands_in_the_reference_with_its_default(model: type[PolicyConfig]):
    page = (DOCS / "reference" / "membership.md").read_text()
    for name, field in model.model_fields.items():
        default = "required"
        if not field.is_required():
            default = f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        assert re.search(rf"^\| `{name}` \| .* \| {re.escape(default)} \|$", page, re.MULTILINE), (name, default)


def test_the_examples_are_accepted():
    page = (DOCS / "howto" / "membership.md").read_text()
    used = set()
    for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        for document in yaml.safe_load_all(block):
            if isinstance(document, list):
                worker_entries.validate_python(document)
                used.add("list")
            for selection in document.get("membership", []) if isinstance(document, dict) else []:
                SOURCES[selection["name"]].Config.model_validate(selection["options"])
                used.add(selection["name"])
    assert used == {"list", *SOURCES}
