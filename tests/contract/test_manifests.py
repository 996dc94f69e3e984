"""What `kubectl` makes of the manifests, without a cluster; what stands in them is tested in `test_deployment.py`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .test_deployment import MANIFESTS, objects

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not there (https://kubernetes.io/docs/tasks/tools)"
)


def kubectl(*arguments: str | Path) -> str:
    done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fields(value: object, path: str = "") -> Iterator[str]:
    """Yield the path of each single value."""
    if isinstance(value, dict | list) and value:
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in entries:
            yield from fields(inner, f"{path}.{key}")
    else:
        yield f"{path}={value}"


def test_kustomize_takes_all_manifests_and_sees_what_refers_to_what(tmp_path: Path):
    for path in MANIFESTS:
        shutil.copy(path, tmp_path)
    kustomization = {"namePrefix": "blue-", "resources": [path.name for path in MANIFESTS]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    built = {each["kind"]: each for each in yaml.safe_load_all(kubectl("kustomize", tmp_path))}
    assert built.keys() == objects().keys()
    assert {each["metadata"]["name"] for each in built.values()} == {"blue-router-core"}
    pod = built["Deployment"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "blue-router-core"
    assert [volume["configMap"]["name"] for volume in pod["volumes"]] == ["blue-router-core"]
    assert built["RoleBinding"]["roleRef"]["name"] == "blue-router-core"
    assert [subject["name"] for subject in built["RoleBinding"]["subjects"]] == ["blue-router-core"]


@pytest.mark.parametrize(
    ("kind", "change"), [("Deployment", ["set", "env", "A=b"]), ("Service", ["set", "selector", "app=router-core"])]
)
def test_kubernetes_knows_every_field(kind: str, change: list[str], tmp_path: Path):
    """Commands that change an object read it into its type, and what the type has no field for is lost on the way."""
    written = objects()[kind]
    (tmp_path / "object.json").write_text(json.dumps(written))
    read = json.loads(kubectl(*change, "--local", "-f", tmp_path / "object.json", "-o", "json"))
    assert set(fields(written)) <= set(fields(read))
